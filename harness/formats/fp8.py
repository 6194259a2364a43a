"""FP8 per tensor: E4M3 weights and inputs, one float32 scale for each.

A stored weight is `code * weight_scale`. Codes are rounded once, from the float32 quotient. The
peer (modelopt 0.47.0) divides in bfloat16 and rounds twice: about 3 % of its codes differ by one
and its squared error is 1 % higher. Scales are equal.

Shapes: O output features, I input features.
Source: nvidia-modelopt 0.47.0, torch/export/unified_export_hf.py (scales).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.formats.e4m3 import E4M3_MAX, scale_of, to_e4m3
from harness.formats.format import Format, check_amax


class Fp8(Format):
    """8 bits a weight, any width."""

    name = "fp8"
    block = None
    weight_bits = 8.0
    shares_group_scale = False
    num_matrices = 1

    def quantize_weight(self, weight_OI: Tensor, *, amax: float) -> dict[str, Tensor]:
        """Return `weight` E4M3 [O, I] and `weight_scale` []; a weight of zeros gets scale 1."""
        scale = scale_of(check_amax(amax) or E4M3_MAX, E4M3_MAX).to(weight_OI.device)
        return {"weight": to_e4m3(weight_OI.float() / scale), "weight_scale": scale}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        return (tensors["weight"].float() * tensors["weight_scale"].float()).to(dtype)

    def input_scale(self, amax: float) -> Tensor:
        """Return amax / 448; an input that was always zero gets 1, as the peer has it."""
        return scale_of(check_amax(amax) or E4M3_MAX, E4M3_MAX)

    def qdq_input(self, x: Tensor, *, input_scale: Tensor) -> Tensor:
        """Round `x` as vLLM does with a static scale: it multiplies by the reciprocal.

        Source: vLLM 0.32.0, model_executor/layers/quantization/input_quant_fp8.py,
        `QuantFP8.forward_native`.
        """
        scale = input_scale.to(x.device, torch.float32)
        return (to_e4m3(x.float() * scale.reciprocal()).float() * scale).to(x.dtype)

    def required_suffixes(self, with_input: bool) -> tuple[str, ...]:  # noqa: FBT001 -- see Format
        """Return the names' suffixes."""
        weights = ("weight", "weight_scale")
        return (*weights, "input_scale") if with_input else weights


FORMAT = Fp8()
