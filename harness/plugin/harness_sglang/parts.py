"""The parameters of SGLang's model, cut into the parts that a checkpoint's tensors fill.

SGLang fuses what a checkpoint keeps apart as vLLM does: the experts of a layer lie in one
parameter, gate and up one behind the other, and so do q, k and v. Every part has the name of the
module that it stands for in a checkpoint.

Source: SGLang 0.5.15, layers/linear.py, layers/moe/fused_moe_triton/layer.py,
layers/quantization/{modelopt_quant,kv_cache}.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness_vllm.ledger import Parameter, ParameterPart
from harness_vllm.linear_parts import linear_parts
from harness_vllm.tape import memory
from sglang.srt.layers.linear import LinearBase
from sglang.srt.layers.moe import get_moe_runner_backend
from sglang.srt.layers.moe.fused_moe_triton import FusedMoE
from sglang.srt.layers.radix_attention import RadixAttention
from torch import Tensor, nn

_KV_SCALES = ("k_scale", "v_scale")
_INPUT_SCALE = "input_scale"
_ENGINES_OWN = ("_blockscale_swizzled", "_weight_scale_inv_dummy")
"""Made from other parameters; SGLang registers them as parameters of their own."""
_GATE = re.compile(r"(^|\.)(gate_proj|w1)(\.|$)")
_UP = re.compile(r"(^|\.)(up_proj|w3)(\.|$)")


def parameters(model: nn.Module) -> Iterator[Parameter]:
    """Yield every parameter that a checkpoint has to fill, each piece of memory once."""
    fused: Mapping[str, Sequence[str]] = getattr(model, "packed_modules_mapping", None) or {}
    without_inputs = weight_only_configs(model)
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        reads_inputs = not is_weight_only(module, without_inputs)
        for local, tensor in module.named_parameters(recurse=False):
            if local.endswith(_INPUT_SCALE) and not reads_inputs:
                continue
            if _needs_no_tensor(module, local, tensor) or memory(tensor) in seen:
                continue
            seen.add(memory(tensor))
            yield Parameter(
                tensor, tuple(_parts(prefix, module, local, tensor, fused)), is_padded=False
            )


def kv_scales(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the scales of keys and values that attention layers have room for."""
    for prefix, module in model.named_modules():
        if isinstance(module, RadixAttention):
            for local, tensor in module.named_parameters(recurse=False):
                if local in _KV_SCALES:
                    yield f"{prefix}.{local}", tensor


def foreign_experts(model: nn.Module) -> frozenset[int]:
    """Return the experts that other ranks hold, where experts are spread over ranks."""
    foreign = [
        frozenset(range(module.num_experts)) - frozenset(_ids(module, module.num_local_experts))
        for module in model.modules()
        if isinstance(module, FusedMoE)
    ]
    return frozenset.intersection(*foreign) if foreign else frozenset()


def weight_only_configs(model: nn.Module) -> frozenset[int]:
    """Return which configurations, by id, declare W4A16_NVFP4 for the experts that hold them.

    Such experts have the method of NVFP4, told apart only by the configuration that the method was
    given. It is found where the whole mixed configuration is kept, by linear layers for one, and
    where a linear layer of W4A16_NVFP4 has it; the experts themselves keep no more than their own.
    """
    found = set()
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        mixed = getattr(module, "quant_config", None)
        found.add(getattr(mixed, "nvfp4a16_config", None))
        if _is_weight_only_linear(module):
            found.add(getattr(method, "quant_config", None))
    return frozenset(id(config) for config in found if config is not None)


def _is_weight_only_linear(module: nn.Module) -> bool:
    method = getattr(module, "quant_method", None)
    return not isinstance(module, FusedMoE) and "A16" in type(method).__name__


def is_weight_only(module: nn.Module, without_inputs: frozenset[int]) -> bool:
    """Return whether a layer is declared without rounded inputs, and its kernel reads no scale.

    Args:
        module: A layer of SGLang.
        without_inputs: What `weight_only_configs` says of its model. Where the kernel of such
            experts rounds inputs all the same, it reads scales that no file holds.
    """
    method: Any = getattr(module, "quant_method", None)
    if not isinstance(module, FusedMoE):
        return _is_weight_only_linear(module)
    is_declared = id(getattr(method, "quant_config", None)) in without_inputs
    return is_declared and expert_backend(method) == "marlin"


def expert_backend(method: object) -> str:
    """Return the backend that runs the experts, as the method resolved it."""
    runner = getattr(method, "runner", None)
    found = getattr(method, "_moe_runner_backend", None) or getattr(runner, "runner_backend", None)
    found = get_moe_runner_backend() if found is None else found
    return str(getattr(found, "value", found))


def _needs_no_tensor(module: nn.Module, local: str, tensor: Tensor) -> bool:
    if tensor.is_meta or tensor.numel() == 0 or local.endswith(_ENGINES_OWN):
        return True
    return isinstance(module, RadixAttention) and local in _KV_SCALES


def _parts(
    prefix: str, module: nn.Module, local: str, tensor: Tensor, fused: Mapping[str, Sequence[str]]
) -> Iterator[ParameterPart]:
    start = int(tensor.storage_offset()) * tensor.element_size()
    whole = ParameterPart(f"{prefix}.{local}".lstrip("."), (start, start + tensor.nbytes))
    if not tensor.is_contiguous():
        yield whole
    elif isinstance(module, FusedMoE) and local.startswith(("w13_", "w2_")):
        yield from _expert_parts(prefix, module, local, tensor)
    elif isinstance(module, LinearBase):
        yield from linear_parts(whole, module, tensor, fused.get(prefix.rpartition(".")[2], ()))
    else:
        yield whole


def _expert_parts(
    prefix: str, module: FusedMoE, local: str, tensor: Tensor
) -> Iterator[ParameterPart]:
    kind, _, suffix = local.partition("_")
    start = int(tensor.storage_offset()) * tensor.element_size()
    step = tensor.nbytes // tensor.shape[0]
    gated = bool(module.moe_runner_config.is_gated)
    up_first = bool(getattr(module.quant_method, "load_up_proj_weight_first", False))
    for row, expert in enumerate(_ids(module, tensor.shape[0])):
        first = start + row * step
        name = f"{prefix}.{expert}"
        if kind == "w2" or not gated:
            what = "down_proj" if kind == "w2" else "up_proj"
            yield ParameterPart(f"{name}.{what}.{suffix}", (first, first + step))
        elif tensor.ndim == 1:
            yield ParameterPart(f"{name}.gate_proj.{suffix}", (first, first + step), _UP)
            yield ParameterPart(f"{name}.up_proj.{suffix}", (first, first + step), _GATE)
        else:
            middle = first + step // 2
            halves = ("up_proj", "gate_proj") if up_first else ("gate_proj", "up_proj")
            yield ParameterPart(f"{name}.{halves[0]}.{suffix}", (first, middle))
            yield ParameterPart(f"{name}.{halves[1]}.{suffix}", (middle, first + step))


def _ids(module: FusedMoE, rows: int) -> range:
    """Return the model's number of each expert of a parameter with so many rows."""
    if rows >= module.num_experts:  # all of them: the input scales are, on every rank
        return range(rows)
    first = int(module.moe_ep_rank) * rows
    return range(first, first + rows)
