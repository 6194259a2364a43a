"""MXFP8: E4M3 in blocks of 32 with a power of two each; inputs are rounded the same way on the fly.

The numbers are those of NVIDIA Model-Optimizer 0.47.0 to the bit.

Shapes: E weights, O output features, I input features, B blocks of 32 input features.
Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/mxfp8_tensor.py; vLLM 0.32.0,
model_executor/layers/quantization/utils/mxfp8_utils.py (inputs).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, to_e4m3
from harness.formats.e8m0 import BLOCK, blocks, exponents, from_bytes, to_bytes
from harness.formats.format import Format
from harness.formats.parts import row_parts


class Mxfp8(Format):
    """8.25 bits a weight."""

    name = "mxfp8"
    block = BLOCK

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` E4M3 [E, O, I] and `weight_scale` uint8 [E, O, B]; without `amax`."""
        del amax
        num_weights, num_rows, width = weight_EOI.shape
        codes_EOI = torch.empty_like(weight_EOI, dtype=torch.float8_e4m3fn)
        shape = num_weights, num_rows, blocks(weight_EOI[:1, :1]).shape[-2]
        scale_EOB = weight_EOI.new_empty(shape, dtype=torch.uint8)
        for part in row_parts(weight_EOI.shape, weight_EOI.device):
            where = part.weights, part.rows
            codes, scale_EOB[where] = _quantize(weight_EOI[where])
            codes_EOI[where] = codes.reshape(*codes.shape[:2], width)
        return {"weight": codes_EOI, "weight_scale": scale_EOB}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        step_OB = from_bytes(tensors["weight_scale"]).unsqueeze(-1)
        return (
            (blocks(tensors["weight"].float()) * step_OB).reshape(tensors["weight"].shape).to(dtype)
        )

    def qdq_input(self, x: Tensor, *, input_scale: Tensor | None) -> Tensor:
        """Round `x` in blocks whose scales are made on the fly."""
        del input_scale
        codes, scale = _quantize(x)
        return (codes.float() * from_bytes(scale).unsqueeze(-1)).reshape(x.shape).to(x.dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes and the exponents of their blocks."""
        num_rows, width = shape
        return {
            "weight": TensorType("F8_E4M3", shape),
            "weight_scale": TensorType("U8", (num_rows, width // BLOCK)),
        }


def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes E4M3 [..., B, 32] and exponents uint8 [..., B]."""
    x_Bk = blocks(x.float())
    exponent_B = exponents(x_Bk.abs().amax(dim=-1), E4M3_MAX)
    return to_e4m3(x_Bk * torch.exp2(-exponent_B).unsqueeze(-1)), to_bytes(exponent_B)


FORMAT = Mxfp8()
