"""FP8 per channel: E4M3 weights with a float32 scale for each output row.

Codes are rounded once, from the float32 quotient, as NVIDIA Model-Optimizer 0.47.0 has them.

Shapes: E weights, O output features, I input features.
Source: nvidia-modelopt 0.47.0, torch/export/quant_utils.py, `to_quantized_weight`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, to_e4m3
from harness.formats.format import Format
from harness.formats.parts import row_parts


class Fp8Channel(Format):
    """8 bits a weight, any width; for weights alone (inputs: fp8_token)."""

    name = "fp8_channel"
    block = None

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` E4M3 [E, O, I] and `weight_scale` [E, O]; a row of zeros gets scale 1."""
        del amax
        codes_EOI = torch.empty_like(weight_EOI, dtype=torch.float8_e4m3fn)
        scale_EO = weight_EOI.new_empty(weight_EOI.shape[:2], dtype=torch.float32)
        for part in row_parts(weight_EOI.shape, weight_EOI.device):
            where = part.weights, part.rows
            values = weight_EOI[where].float()
            amax_EO = values.abs().amax(dim=-1)
            scale_EO[where] = torch.where(amax_EO > 0, amax_EO / E4M3_MAX, 1.0)
            codes_EOI[where] = to_e4m3(values / scale_EO[where].unsqueeze(-1))
        return {"weight": codes_EOI, "weight_scale": scale_EO}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        return (tensors["weight"].float() * tensors["weight_scale"].unsqueeze(-1)).to(dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes and a scale a row."""
        return {
            "weight": TensorType("F8_E4M3", shape),
            "weight_scale": TensorType("F32", shape[:1]),
        }


FORMAT = Fp8Channel()
