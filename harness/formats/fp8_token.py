"""FP8 per token: inputs in E4M3, each token's scale taken from its own largest value.

For inputs alone; nothing is stored. Source: vLLM 0.32.0, model_executor/layers/quantization/
input_quant_fp8.py, `QuantFP8.forward_native`.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, to_e4m3
from harness.formats.format import Format

_LEAST_SCALE = 1.0 / (E4M3_MAX * 512.0)


class Fp8Token(Format):
    """A format of inputs."""

    name = "fp8_token"
    block = None

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Refuse.

        Raises:
            NotImplementedError: it is for inputs.
        """
        raise NotImplementedError

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Refuse, as `quantize_weights`."""
        raise NotImplementedError

    def qdq_input(self, x: Tensor, *, input_scale: Tensor | None) -> Tensor:
        """Round `x` as vLLM does: it multiplies by the reciprocal of the scale."""
        del input_scale
        scale = (x.abs().amax(dim=-1, keepdim=True).float() / E4M3_MAX).clamp(min=_LEAST_SCALE)
        return (to_e4m3(x.float() * scale.reciprocal()).float() * scale).to(x.dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Refuse, as `quantize_weights`."""
        raise NotImplementedError


FORMAT = Fp8Token()
