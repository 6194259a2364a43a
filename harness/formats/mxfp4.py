"""MXFP4: 4-bit floats in blocks of 32 with a power of two each; two codes lie in a byte.

The numbers are those of NVIDIA Model-Optimizer 0.47.0 to the bit, which differ from NVFP4's in
more than the scale: a value halfway between two codes gets the smaller one, and zero gets the code
of minus zero.

Shapes: E weights, O output features, I input features, B blocks of 32 input features.
Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/mxfp4_tensor.py.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e8m0 import BLOCK, blocks, exponents, from_bytes, to_bytes
from harness.formats.format import Format
from harness.formats.nvfp4 import E2M1_MAX, values_of
from harness.formats.parts import row_parts

_BOUNDS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""The largest magnitude that still gets each code."""


class Mxfp4(Format):
    """4.25 bits a weight."""

    name = "mxfp4"
    block = BLOCK
    is_widened_to_own_type = True

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` uint8 [E, O, I/2] and `weight_scale` uint8 [E, O, B]; without `amax`."""
        del amax
        num_weights, num_rows, width = weight_EOI.shape
        num_blocks = blocks(weight_EOI[:1, :1]).shape[-2]
        packed = weight_EOI.new_empty(num_weights, num_rows, width // 2, dtype=torch.uint8)
        scale_EOB = weight_EOI.new_empty(num_weights, num_rows, num_blocks, dtype=torch.uint8)
        for part in row_parts(weight_EOI.shape, weight_EOI.device):
            where = part.weights, part.rows
            codes, scale_EOB[where] = _quantize(weight_EOI[where])
            packed[where] = codes[..., 0::2] | (codes[..., 1::2] << 4)
        return {"weight": packed, "weight_scale": scale_EOB}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        values_OI = values_of(tensors["weight"])
        step_OB1 = from_bytes(tensors["weight_scale"]).unsqueeze(-1)
        return (blocks(values_OI) * step_OB1).reshape(values_OI.shape).to(dtype)

    def qdq_input(self, x: Tensor, *, input_scale: Tensor | None) -> Tensor:
        """Round `x` in blocks whose scales are made on the fly."""
        del input_scale
        codes, scale = _quantize(x)
        packed = codes[..., 0::2] | (codes[..., 1::2] << 4)
        step = from_bytes(scale).unsqueeze(-1)
        return (blocks(values_of(packed)) * step).reshape(x.shape).to(x.dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes and the exponents of their blocks."""
        num_rows, width = shape
        return {
            "weight": TensorType("U8", (num_rows, width // 2)),
            "weight_scale": TensorType("U8", (num_rows, width // BLOCK)),
        }


def _quantize(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return codes uint8 [..., I] and exponents uint8 [..., B]."""
    x_Bk = blocks(x.float())
    exponent_B = exponents(x_Bk.abs().amax(dim=-1), E2M1_MAX)
    scaled = (x_Bk / torch.exp2(exponent_B).unsqueeze(-1)).reshape(x.shape)
    codes = (scaled <= 0).to(torch.uint8) << 3
    magnitude = scaled.abs()
    for bound in _BOUNDS:
        codes += magnitude > bound
    return codes, to_bytes(exponent_B)


FORMAT = Mxfp4()
