"""The scales of keys and values that a model's attention layers have room for."""

from collections.abc import Iterator

from torch import Tensor, nn
from vllm.model_executor.layers.quantization.kv_cache import BaseKVCacheMethod

from .parts import KV_SCALES


def kv_scales(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield their names and places."""
    for prefix, module in model.named_modules():
        if has_kv_scales(module):
            for local, tensor in module.named_parameters(recurse=False):
                if local in KV_SCALES:
                    yield f"{prefix}.{local}", tensor


def has_kv_scales(module: nn.Module) -> bool:
    """Return whether a module's `k_scale` and its like are those of its cache."""
    return isinstance(getattr(module, "quant_method", None), BaseKVCacheMethod)
