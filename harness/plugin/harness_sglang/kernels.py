"""What a loaded model computes with: SGLang's method of each layer, and the backend it resolved."""

from collections.abc import Iterator
from typing import Any

from sglang.srt.layers.linear import LinearBase
from sglang.srt.layers.moe.fused_moe_triton import FusedMoE
from sglang.srt.layers.radix_attention import RadixAttention
from torch import nn

from .parts import expert_backend


def kernels(model: nn.Module) -> dict[str, list[str]]:
    """Return the distinct names for `linear` and `experts`, and whether there is attention."""
    found: dict[str, set[str]] = {"linear": set(), "experts": set()}
    for module in model.modules():
        for part, name in _names(module):
            found[part].add(name)
    named = {part: sorted(names) for part, names in found.items()}
    has_attention = any(isinstance(module, RadixAttention) for module in model.modules())
    return named | (_of_attention() if has_attention else {"attention": [], "kv_cache": []})


def _names(module: nn.Module) -> Iterator[tuple[str, str]]:
    method = getattr(module, "quant_method", None)
    if method is None:
        return
    if isinstance(module, FusedMoE):
        yield "experts", f"{type(method).__name__} {expert_backend(method)}".strip()
    elif isinstance(module, LinearBase):
        yield "linear", f"{type(method).__name__} {_linear_backend(method)}".strip()


def _linear_backend(method: Any) -> str:
    """Return the backend of FP4 and of FP8 layers; nothing where there is but one."""
    name = type(method).__name__.lower()
    if "fp4" in name and "a16" in name:
        return "marlin"
    if "fp4" in name:
        from sglang.srt.layers.quantization.fp4_utils import (  # noqa: PLC0415 -- not in all versions
            get_fp4_gemm_runner_backend,
        )

        return str(get_fp4_gemm_runner_backend().value)
    if "fp8" in name:
        if getattr(method, "enable_flashinfer_bmm", False):
            return "flashinfer"
        return "cutlass" if getattr(method, "cutlass_fp8_supported", False) else "torch"
    return ""


def _of_attention() -> dict[str, list[str]]:
    from sglang.srt.server_args import get_global_server_args  # noqa: PLC0415 -- as above

    arguments = get_global_server_args()
    backend = getattr(arguments, "attention_backend", None)
    dtype = getattr(arguments, "kv_cache_dtype", None)
    return {
        "attention": [str(backend)] if backend else [],
        "kv_cache": [str(dtype)] if dtype else [],
    }
