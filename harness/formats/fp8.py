"""FP8 per tensor: E4M3 weights and inputs, one float32 scale for each.

A stored weight is `code * weight_scale`. Codes are rounded once, from the float32 quotient. The
peer (modelopt 0.47.0) divides in bfloat16 and rounds twice: about 3 % of its codes differ by one
and its squared error is 1 % higher. Scales are equal.

Shapes: E weights, O output features, I input features.
Source: nvidia-modelopt 0.47.0, torch/export/unified_export_hf.py (scales).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, scale_of, to_e4m3
from harness.formats.format import Format, check_amax, given
from harness.formats.on_gpu import brought, fused_kernel
from harness.formats.parts import row_parts


class Fp8(Format):
    """8 bits a weight, any width."""

    name = "fp8"
    block = None
    one_scale = "weight_scale"
    has_input_scale = True

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` E4M3 [E, O, I] and `weight_scale` [E]; a weight of zeros gets scale 1."""
        ranges = [check_amax(one) or E4M3_MAX for one in amax]
        scale_E = brought(scale_of(ranges, E4M3_MAX), weight_EOI.device)
        fused = fused_kernel(self.name, weight_EOI.device, ranges)
        if fused is not None:
            return {"weight": fused(weight_EOI, scale_E), "weight_scale": scale_E}
        codes_EOI = torch.empty_like(weight_EOI, dtype=torch.float8_e4m3fn)
        for part in row_parts(weight_EOI.shape, weight_EOI.device):
            scale_E11 = scale_E[part.weights, None, None]
            values = weight_EOI[part.weights, part.rows].float() / scale_E11
            codes_EOI[part.weights, part.rows] = to_e4m3(values)
        return {"weight": codes_EOI, "weight_scale": scale_E}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        return (tensors["weight"].float() * tensors["weight_scale"].float()).to(dtype)

    def input_scale(self, amax: float) -> Tensor:
        """Return amax / 448; an input that was always zero gets 1, as the peer has it."""
        return scale_of(check_amax(amax) or E4M3_MAX, E4M3_MAX)

    def qdq_input(self, x: Tensor, *, input_scale: Tensor | None) -> Tensor:
        """Round `x` as vLLM does with a static scale: it multiplies by the reciprocal.

        Source: vLLM 0.32.0, model_executor/layers/quantization/input_quant_fp8.py,
        `QuantFP8.forward_native`.
        """
        scale = given(input_scale).to(x.device, torch.float32)
        return (to_e4m3(x.float() * scale.reciprocal()).float() * scale).to(x.dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes and their scale."""
        return {"weight": TensorType("F8_E4M3", shape), "weight_scale": TensorType("F32", ())}


def requantized(tensors: Mapping[str, Tensor], merged: Tensor) -> Tensor:
    """Return a weight's codes for `merged`, the scale of the layer that an engine fuses it into.

    Source: vLLM, quantization/utils/w8a8_utils.py, `requantize_with_max_scale`: by way of
    float16, and multiplied with the reciprocal.
    """
    codes, own = tensors["weight"], tensors["weight_scale"].float().reshape(())
    if own == merged:
        return codes
    return to_e4m3((codes.half() * own).float() * merged.reciprocal())


FORMAT = Fp8()
