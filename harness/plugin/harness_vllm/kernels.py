"""What a loaded model computes with, by the names that vLLM gives its kernels."""

from collections.abc import Iterator
from enum import Enum
from typing import Any

from torch import nn
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase


def kernels(model: nn.Module) -> dict[str, list[str]]:
    """Return the distinct names for `linear`, `experts`, `attention` and `kv_cache`."""
    found: dict[str, set[str]] = {"linear": set(), "experts": set(), "attention": set()}
    found["kv_cache"] = set()
    for module in model.modules():
        for part, name in _names(module):
            found[part].add(name)
    return {part: sorted(names) for part, names in found.items()}


def _names(module: nn.Module) -> Iterator[tuple[str, str]]:
    if isinstance(module, LinearBase):
        yield "linear", name_of_linear(module)
    elif isinstance(module, RoutedExperts):
        yield "experts", name_of_experts(module)
    elif isinstance(module, AttentionLayerBase):
        yield "attention", str(module.get_attn_backend().get_name())
        dtype = getattr(module, "kv_cache_dtype", None)  # linear attention has no keys and values
        if dtype is not None:
            yield "kv_cache", str(dtype)


def name_of_linear(layer: Any) -> str:
    """Return the class of the kernel; of the method where that has no kernel of its own."""
    for holder in (getattr(layer, "scheme", None), layer.quant_method):
        for attribute in ("kernel", "fp8_linear"):
            kernel = getattr(holder, attribute, None)
            if kernel is not None:
                return type(kernel).__name__
    return type(layer.quant_method).__name__


def name_of_experts(layer: Any) -> str:
    """Return format, backend and class of the experts, such as `NVFP4 MARLIN MarlinExperts`."""
    method = getattr(layer.quant_method, "old_quant_method", layer.quant_method)
    backends = [
        name.removesuffix("_backend").upper() + f" {value.value}"
        for name, value in vars(method).items()
        if name.endswith("_backend") and isinstance(value, Enum)
    ]
    experts = getattr(method, "experts_cls", None)
    kernel = getattr(layer.quant_method, "moe_kernel", None)
    if kernel is not None:
        experts = type(kernel.fused_experts)
    return " ".join([*backends, type(method).__name__ if experts is None else experts.__name__])
