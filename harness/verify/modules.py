"""What a checkpoint's modules are, told from names and shapes alone.

No model family is named here: an expert is `<path>.experts.<number>.<projection>`, a router has a
row for each expert that lies beside it, and layers that engines fuse are siblings with well-known
names.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.engines import FUSED


class Module(dict[str, TensorHeader]):
    """The tensors of one module by the last part of their names."""

    joint = "."
    """What stands between the module's name and the last part; `_` for a stack of experts, whose
    weight has the name of the module."""

    def tensor_of(self, name: str, leaf: str) -> str:
        """Return the full name of a tensor of the module called `name`, be it there or not."""
        if self.joint == ".":
            return tensor_of(name, leaf)
        return name if leaf == "weight" else f"{name}{self.joint}{leaf}"


SCALE_LEAVES = (
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "input_scale",
    "weight_global_scale",
    "input_global_scale",
)
BLOCKS, BLOCK_SCALES = "blocks", "scales"
"""What OpenAI's MXFP4 stores for the experts of a layer."""
_WEIGHTS = ("weight", "weight_packed", BLOCKS)
_SCALES = frozenset({*SCALE_LEAVES, BLOCK_SCALES})
_STACK_LEAVES = (*SCALE_LEAVES, BLOCKS, BLOCK_SCALES)
"""What is written behind the name of a stack: `experts.gate_up_proj_weight_scale`."""
KV_LEAVES = ("k_scale", "v_scale")
_ALL_SCALES = frozenset({*SCALE_LEAVES, *KV_LEAVES})
EXPONENTS = "F8_E8M0"
"""The type of powers of two; nothing but scales is stored in it."""
_EXPERT = re.compile(r"^(?P<experts>.+\.experts)\.(?P<index>\d+)\.(?P<projection>[^.]+)$")
_QUANTIZER = re.compile(
    r"(weight|input|output|bmm|softmax)_(quantizers?|observer)$|^activation_post_process$"
)
_STATE = re.compile(
    r"(^|_)(amax|amax_pre|amax_post|double_scale|scale_zeros|bias_value)$|^_(pre_quant_)?scale$"
)
"""Buffers of modelopt's quantizers, and observers of other libraries. `pre_quant_scale`, without
the first underscore, is a tensor of AWQ that engines read."""
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
_JOINTS = {"eh_proj", "enorm", "hnorm"}
_QUANTIZED_TYPES = {"U8", "I8", "F8_E4M3"}


class Expert(NamedTuple):
    """One projection of one routed expert."""

    experts: str
    """Path of the layer's experts, which engines treat as one module."""
    number: int
    projection: str


def group_modules(tensors: Mapping[str, TensorHeader]) -> dict[str, Module]:
    """Return the tensors by module, in the order of the names."""
    modules: dict[str, Module] = defaultdict(Module)
    for name in sorted(tensors):
        module, leaf = _place_of(name, tensors)
        modules[module][leaf] = tensors[name]
        if not name.startswith(f"{module}.") and module:
            modules[module].joint = "_"
    return dict(modules)


def _place_of(name: str, tensors: Mapping[str, TensorHeader]) -> tuple[str, str]:
    """Return the module of one of the tensors, and the last part of its name there."""
    parent, _, last = name.rpartition(".")
    if (leaf := leaf_of(name)) != last:
        return name.removesuffix(f"_{leaf}"), leaf
    if not _is_experts(parent) or last.isdigit():
        return parent, last
    is_coded = tensors[name].dtype in _QUANTIZED_TYPES and len(tensors[name].shape) > 2  # noqa: PLR2004  a matrix
    is_stack = is_coded or any(f"{name}_{leaf}" in tensors for leaf in _STACK_LEAVES)
    return (name, "weight") if is_stack else (parent, last)


@lru_cache(maxsize=1 << 18)
def leaf_of(name: str) -> str:
    """Return the last part of a tensor's name, that of a stack's scale without the stack."""
    parent, _, last = name.rpartition(".")
    if _is_experts(parent):
        return next((leaf for leaf in _STACK_LEAVES if last.endswith(f"_{leaf}")), last)
    return last


def is_scale(name: str, dtype: str) -> bool:
    """Return whether a tensor scales others: DeepSeek V4's are called `scale` and are exponents."""
    return dtype == EXPONENTS or leaf_of(name) in _ALL_SCALES


def _is_experts(path: str) -> bool:
    return path.endswith(".experts") or path == "experts"


def tensor_of(module: str, leaf: str) -> str:
    """Return the name of a module's tensor; one without a dot is of the module without a name."""
    return f"{module}.{leaf}" if module else leaf


@lru_cache(maxsize=1 << 17)
def expert_of(module: str) -> Expert | None:
    """Return which expert's projection `module` is; None for other layers."""
    found = _EXPERT.match(module)
    if found is None:
        return None
    return Expert(found["experts"], int(found["index"]), found["projection"])


def experts_of(module: str) -> str | None:
    """Return the path of a layer's experts, of which `module` is one, a stack, or all."""
    expert = expert_of(module)
    if expert is not None:
        return expert.experts
    return next((p for p in (module.rpartition(".")[0], module) if _is_experts(p)), None)


def may_be_stack(module: str) -> bool:
    """Return whether the weight of a module may be that of all experts of a layer."""
    return experts_of(module) is not None or module.rpartition(".")[0].endswith("moe")


def quantized_stacks(modules: Mapping[str, Module]) -> Mapping[str, int]:
    """Return how many experts each quantized stack holds."""
    weights = {name: weight_of(module) for name, module in modules.items() if may_be_stack(name)}
    return {
        name: weight.shape[0]
        for name, weight in weights.items()
        if weight and len(weight.shape) > 2 and is_quantized(modules[name])  # noqa: PLR2004  a matrix
    }


def weight_of(module: Mapping[str, TensorHeader]) -> TensorHeader | None:
    """Return a linear layer's weight, packed or not."""
    for leaf in _WEIGHTS:
        if leaf in module:
            return module[leaf]
    return None


def is_quantized(module: Mapping[str, TensorHeader]) -> bool:
    """Return whether a module's tensors are those of a quantized layer."""
    weight = weight_of(module)
    packed = weight is not None and weight.dtype in _QUANTIZED_TYPES
    if packed or not _SCALES.isdisjoint(module):
        return True
    return any(header.dtype == EXPONENTS for header in module.values())


def is_plain_linear(name: str, module: Mapping[str, TensorHeader]) -> bool:
    """Return whether a module looks like an unquantized linear layer: a matrix, no embedding.

    The stacked experts of a layer, [expert, out, in], count as one.
    """
    if is_quantized(module):
        return False
    if _is_experts(name):
        return any(len(header.shape) == 3 for header in module.values())  # noqa: PLR2004  a stack
    num_dims = len(module["weight"].shape) if "weight" in module else 0
    if num_dims != 2 and not (num_dims == 3 and may_be_stack(name)):  # noqa: PLR2004  a matrix, or a stack
        return False
    last = name.rpartition(".")[2]
    return "embed" not in last and last not in {"wte", "wpe"}


def routers_of(modules: Mapping[str, Module]) -> frozenset[str]:
    """Return the modules that decide which experts a token goes to.

    A router is a matrix [number of experts, width] beside the experts, or the only matrix of a part
    that lies there (`router.proj`, `router.layer`); one that is called so is one in any shape.
    """
    blocks = dict(_blocks(modules))
    rows: dict[str, int] = {}
    for name, module in modules.items():
        weight = weight_of(module)
        if weight is None or len(weight.shape) == 2:  # noqa: PLR2004  a matrix
            rows[name] = weight.shape[0] if weight else 0
    siblings = Counter(name.rpartition(".")[0] for name in rows)
    found = set()
    for name, num_rows in rows.items():
        part = name if (parent := name.rpartition(".")[0]) in blocks else parent
        block, _, last = part.rpartition(".")
        is_alone = part == name or siblings[part] == 1
        if block in blocks and is_alone and (last in _ROUTERS or num_rows == blocks[block]):
            found.add(name)
    return frozenset(found)


def _blocks(modules: Mapping[str, Module]) -> Iterator[tuple[str, int]]:
    """Yield the blocks that hold experts, with their number."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name, module in modules.items():
        expert = expert_of(name)
        if expert is not None:
            numbers[expert.experts].add(expert.number)
            continue
        if may_be_stack(name):
            stacks = (h.shape for h in module.values() if len(h.shape) > 2)  # noqa: PLR2004  a matrix
            path = experts_of(name) or name
            yield from ((path.rpartition(".")[0], shape[0]) for shape in stacks)
    for path, found in numbers.items():
        yield path.rpartition(".")[0], len(found)


def is_quantizer_state(tensor: str) -> bool:
    """Return whether a tensor is what a quantizer remembers while it works, not what it makes."""
    *modules, leaf = tensor.split(".")
    return bool(_STATE.search(leaf)) or any(map(_QUANTIZER.search, modules))


def is_vision(name: str) -> bool:
    """Return whether a module belongs to the part that reads images or sound."""
    return not _VISION.isdisjoint(name.split("."))


def draft_layers(modules: Iterable[str]) -> tuple[str, ...]:
    """Return the beginnings of names of draft heads that are one more layer of the decoder.

    DeepSeek's and GLM's are; what joins them to the other layers tells them.
    """
    joined = (name.rpartition(".") for name in modules)
    return tuple(sorted({f"{layer}." for layer, _, last in joined if last in _JOINTS}))


def is_draft(name: str, layers: tuple[str, ...]) -> bool:
    """Return whether a module belongs to a head that guesses several tokens ahead."""
    return name.startswith(layers) or not _DRAFT.isdisjoint(name.split("."))


def joins_draft(name: str) -> bool:
    """Return whether a module joins a draft head to the decoder: engines build it unquantized."""
    return name.rpartition(".")[2] in _JOINTS or ".shared_head." in name


def fused_groups(modules: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of modules that engines fuse; a group has at least two members."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in modules:
        for whole in _wholes(name):
            members[whole].append(name)
    return [tuple(group) for group in members.values() if len(group) > 1]


def fused_name(module: str) -> str | None:
    """Return the name of the layer that engines fuse a module into; None for other modules."""
    return next(_wholes(module), None)


def _wholes(module: str) -> Iterator[str]:
    """Yield what a module may be a part of; its siblings tell of which."""
    parent, _, last = module.rpartition(".")
    return (f"{parent}.{whole}" for whole, parts in FUSED if last in parts)


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
