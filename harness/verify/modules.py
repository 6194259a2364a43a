"""What a checkpoint's modules are, told from names and shapes alone.

No model family is named here: an expert is `<path>.experts.<number>.<projection>`, a router is the
gate beside experts, and layers that engines fuse are siblings with well-known names.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.artifacts import TensorHeader

Module = Mapping[str, TensorHeader]
"""The tensors of one module by the last part of their names."""

SCALE_LEAVES = (
    "weight_scale",
    "weight_scale_2",
    "input_scale",
    "weight_global_scale",
    "input_global_scale",
)
_SCALES = frozenset(SCALE_LEAVES)
KV_LEAVES = ("k_scale", "v_scale")
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "w13": ("w1", "w3"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""Siblings that engines load into one weight, with one global scale, by the name of the whole."""

_EXPERT = re.compile(r"^(?P<experts>.+\.experts)\.(?P<index>\d+)\.(?P<projection>[^.]+)$")
_ROUTERS = {"gate", "router", "shared_expert_gate"}
_VISION = {
    "audio_tower",
    "embed_audio",
    "embed_vision",
    "multi_modal_projector",
    "vision_encoder",
    "vision_model",
    "vision_tower",
    "visual",
}
_DRAFT = {"mtp", "nextn"}
_QUANTIZED_TYPES = {"U8", "F8_E4M3"}


class Expert(NamedTuple):
    """One projection of one routed expert."""

    experts: str
    """Path of the layer's experts, which engines treat as one module."""
    number: int
    projection: str


def group_modules(tensors: Mapping[str, TensorHeader]) -> dict[str, dict[str, TensorHeader]]:
    """Return the tensors by module, in the order of the names."""
    modules: dict[str, dict[str, TensorHeader]] = defaultdict(dict)
    for name in sorted(tensors):
        module, _, leaf = name.rpartition(".")
        modules[module][leaf] = tensors[name]
    return dict(modules)


def tensor_of(module: str, leaf: str) -> str:
    """Return the name of a module's tensor; one without a dot is of the module without a name."""
    return f"{module}.{leaf}" if module else leaf


def expert_of(module: str) -> Expert | None:
    """Return which expert's projection `module` is; None for other layers."""
    found = _EXPERT.match(module)
    if found is None:
        return None
    return Expert(found["experts"], int(found["index"]), found["projection"])


def weight_of(module: Module) -> TensorHeader | None:
    """Return a linear layer's weight, packed or not."""
    weight = module.get("weight")
    return module.get("weight_packed") if weight is None else weight


def is_quantized(module: Module) -> bool:
    """Return whether a module's tensors are those of a quantized layer."""
    weight = weight_of(module)
    packed = weight is not None and weight.dtype in _QUANTIZED_TYPES
    return packed or not _SCALES.isdisjoint(module)


def is_plain_linear(name: str, module: Module) -> bool:
    """Return whether a module looks like an unquantized linear layer: a matrix, no embedding."""
    weight = module.get("weight")
    if weight is None or len(weight.shape) != 2 or is_quantized(module):  # noqa: PLR2004  a matrix
        return False
    last = name.rpartition(".")[2]
    return "embed" not in last and last not in {"wte", "wpe"}


def stacked_experts(name: str, module: Module) -> tuple[str, ...]:
    """Return the tensors of a module that stack all experts of a layer, unquantized."""
    if name.rpartition(".")[2] != "experts":
        return ()
    return tuple(leaf for leaf, header in module.items() if len(header.shape) == 3)  # noqa: PLR2004  [expert, out, in]


def is_router(name: str, modules: Iterable[str]) -> bool:
    """Return whether `name` decides which experts a token goes to."""
    block, _, last = name.rpartition(".")
    return last in _ROUTERS and any(other.startswith(f"{block}.experts") for other in modules)


def is_vision(name: str) -> bool:
    """Return whether a module belongs to the part that reads images or sound."""
    return not _VISION.isdisjoint(name.split("."))


def is_draft(name: str) -> bool:
    """Return whether a module belongs to a head that guesses several tokens ahead."""
    return not _DRAFT.isdisjoint(name.split("."))


def fused_groups(modules: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of modules that engines fuse; a group has at least two members."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in modules:
        whole = fused_name(name)
        if whole is not None:
            members[whole].append(name)
    return [tuple(group) for group in members.values() if len(group) > 1]


def fused_name(module: str) -> str | None:
    """Return the name of the layer that engines fuse a module into; None for other modules."""
    parent, _, last = module.rpartition(".")
    return next((f"{parent}.{whole}" for whole, parts in FUSED.items() if last in parts), None)


def engine_names(module: str) -> tuple[str, ...]:
    """Return the names under which an engine may ask whether a module is excluded."""
    expert = expert_of(module)
    if expert is not None:
        return (expert.experts,)
    whole = fused_name(module)
    return (module, whole) if whole else (module,)


def first_expert_names(module: str) -> tuple[str, ...]:
    """Return the names under which an engine looks a module up in compressed-tensors' groups.

    It asks for the first expert of a layer and believes the others to be alike; the name of the
    layer's experts as a whole stands for a tensor that stacks them.
    """
    expert = expert_of(module)
    if expert is not None:
        return (f"{expert.experts}.0.{expert.projection}",)
    if module.rpartition(".")[2] == "experts":
        return (f"{module}.0.gate_proj", module)
    return engine_names(module)


def is_head(module: str) -> bool:
    """Return whether a module is the output layer, which engines do not count as linear."""
    return module.rpartition(".")[2] == "lm_head"


_LAYER = re.compile(r"(?:^|\.)layers\.(?P<index>\d+)\.(?P<rest>.+)$")


def kind_of(module: str) -> str | None:
    """Return a layer's number and kind, such as `3.experts.down_proj`; None outside layers."""
    found = _LAYER.search(module)
    if found is None:
        return None
    parts = [part for part in found["rest"].split(".") if not part.isdigit()]
    return ".".join([found["index"], *parts[-2:]])
