"""The parameters of vLLM's model, cut into the parts that a checkpoint's tensors fill.

vLLM fuses what a checkpoint keeps apart: the experts of a layer lie in one parameter, with gate
and up one behind the other, and so do q, k and v. A hole of one expert is invisible in the name
of such a parameter. So every part has the name of the module that it stands for in a checkpoint,
such as `...layers.0.mlp.experts.3.gate_proj.input_scale`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase

from .ledger import Parameter, ParameterPart
from .linear_parts import linear_parts
from .tape import memory

KV_SCALES = ("k_scale", "v_scale")
_ATTENTION_SCALES = {*KV_SCALES, "q_scale", "prob_scale"}
# compressed-tensors' method makes room for these, and never reads them.
_ATTENTION_SCALES |= {"k_zero_point", "v_zero_point", "q_zero_point"}
_INPUT_SCALES = ("input_scale", "input_global_scale")
_ENGINES_OWN = ("input_scale_ub", "g_idx", "g_idx_sort_indices")
"""Built from the configuration, or left out of most checkpoints of their format."""
_GATE = re.compile(r"(^|\.)(gate_proj|w1)(\.|$)")
_UP = re.compile(r"(^|\.)(up_proj|w3)(\.|$)")


def parameters(model: nn.Module, has_kv_scales: Callable[[nn.Module], bool]) -> Iterator[Parameter]:
    """Yield every parameter that a checkpoint has to fill, each piece of memory once.

    Args:
        model: the model before it is loaded.
        has_kv_scales: whether a module's scales are those of its cache, which are no such.
    """
    fused: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", {})
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for local, tensor in module.named_parameters(recurse=False):
            if _needs_no_tensor(module, local, tensor) or memory(tensor) in seen:
                continue
            if local in _ATTENTION_SCALES and has_kv_scales(module):
                continue
            seen.add(memory(tensor))
            parts = tuple(_parts(prefix, module, local, tensor, fused))
            yield Parameter(tensor, parts, _is_padded(module))


def foreign_experts(model: nn.Module) -> frozenset[int]:
    """Return the experts that other ranks hold, where experts are spread over ranks."""
    foreign = [
        frozenset(expert for expert, place in enumerate(ids.tolist()) if place < 0)
        for module in model.modules()
        if isinstance(module, RoutedExperts) and (ids := _expert_map(module)) is not None
    ]
    return frozenset.intersection(*foreign) if foreign else frozenset()


def _expert_map(experts: nn.Module) -> Tensor | None:
    """Return the place of each of the model's experts on this rank, -1 for none; None for all."""
    ids: Tensor | None = getattr(experts, "_expert_map", None)
    return ids


def _is_weight_only(method: object) -> bool:
    """Return whether a quantization method leaves inputs alone; its `input_scale` is no hole.

    vLLM registers that parameter all the same, so that checkpoints which have it can be loaded.
    """
    spec = getattr(method, "spec", None)
    return (
        bool(getattr(method, "use_a16", False))
        or "W4A16" in type(method).__name__
        or (spec is not None and spec.activation is None)
    )


def _is_padded(module: nn.Module) -> bool:
    """Return whether these experts' parameters are larger than the checkpoint's tensors."""
    config: Any = getattr(module, "moe_config", None)
    if config is None:
        return False
    real = config.hidden_dim_unpadded
    part = config.intermediate_size_per_partition
    return real not in (None, config.hidden_dim) or (
        config.intermediate_size_per_partition_unpadded not in (None, part)
    )


def _needs_no_tensor(module: nn.Module, local: str, tensor: Tensor) -> bool:
    method = getattr(module, "quant_method", None)
    if tensor.is_meta or tensor.numel() == 0 or local.endswith(_ENGINES_OWN):
        return True
    return local.endswith(_INPUT_SCALES) and _is_weight_only(method)


def _parts(
    prefix: str, module: nn.Module, local: str, tensor: Tensor, fused: Mapping[str, Sequence[str]]
) -> Iterator[ParameterPart]:
    start = int(tensor.storage_offset()) * tensor.element_size()
    whole = ParameterPart(f"{prefix}.{local}".lstrip("."), (start, start + tensor.nbytes))
    if not tensor.is_contiguous():
        yield whole
    elif isinstance(module, RoutedExperts) and local.startswith(("w13_", "w2_")):
        yield from _expert_parts(prefix.removesuffix(".routed_experts"), module, local, tensor)
    elif isinstance(module, LinearBase):
        yield from linear_parts(whole, module, tensor, fused.get(prefix.rpartition(".")[2], ()))
    else:
        yield whole


def _expert_parts(
    prefix: str, module: nn.Module, local: str, tensor: Tensor
) -> Iterator[ParameterPart]:
    kind, _, suffix = local.partition("_")
    start = int(tensor.storage_offset()) * tensor.element_size()
    step = tensor.nbytes // tensor.shape[0]
    for row, expert in enumerate(expert_numbers(module, tensor.shape[0])):
        first = start + row * step
        name = f"{prefix}.{expert}"
        if kind == "w2":
            yield ParameterPart(f"{name}.down_proj.{suffix}", (first, first + step))
        elif tensor.ndim == 1:
            yield ParameterPart(f"{name}.gate_proj.{suffix}", (first, first + step), _UP)
            yield ParameterPart(f"{name}.up_proj.{suffix}", (first, first + step), _GATE)
        else:
            middle = first + step // 2
            yield ParameterPart(f"{name}.gate_proj.{suffix}", (first, middle))
            yield ParameterPart(f"{name}.up_proj.{suffix}", (middle, first + step))


def expert_numbers(module: nn.Module, rows: int) -> list[int]:
    """Return the model's number of each expert that this rank holds."""
    ids = _expert_map(module)
    if ids is None or rows == len(ids):
        return list(range(rows))
    places: dict[int, int] = {int(place): i for i, place in enumerate(ids.tolist()) if place >= 0}
    return [places.get(row, row) for row in range(rows)]
