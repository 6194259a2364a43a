"""Static FP8 quantization, by which vLLM brings fused weights to one scale; CPU has no operator."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import vllm._custom_ops as ops
from torch import Tensor

from .rounding import quantize_fp8


def install() -> None:
    """Compute it in torch where there is one scale for all."""
    ops.scaled_fp8_quant = _with_static_scale(ops.scaled_fp8_quant)


def _with_static_scale(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def scaled_fp8_quant(input: Tensor, scale: Tensor | None = None, **kwargs: Any) -> Any:  # noqa: A002 -- vLLM's signature
        if scale is None or scale.numel() != 1 or any(v for v in kwargs.values()):
            return original(input, scale, **kwargs)
        return quantize_fp8(input, scale), scale

    return scaled_fp8_quant
