"""The layers that an engine runs, under the names by which it asks for them.

An engine looks a layer up under its own name: beginnings and parts of names are rewritten (its
mapper), layers such as q, k and v are one `qkv_proj`, and all routed experts of a layer are one
module. Tensor-parallel size is taken as 1.
"""

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

_EXPERT = re.compile(r"(?P<experts>.+\.experts)(\.\d+)?\.[^.]+")
"""An expert's projection, or what stacks that of all experts."""

FUSED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("qkv_proj", ("q_proj", "k_proj", "v_proj")),
    ("qkv_proj", ("query", "key", "value")),
    ("qkv_proj", ("wq", "wk", "wv")),
    ("gate_up_proj", ("gate_proj", "up_proj")),
    ("gate_up_proj", ("c_fc_0", "c_fc_1")),
    ("w13", ("w1", "w3")),
    ("in_proj_qkvz", ("in_proj_qkv", "in_proj_z")),
    ("in_proj_ba", ("in_proj_b", "in_proj_a")),
    ("fused_qkv_a_proj", ("q_a_proj", "kv_a_proj_with_mqa")),
    ("fused_wqa_wkv", ("wq_a", "wkv")),
    ("fused_wkv_wgate", ("wkv", "wgate")),
    ("qkvr", ("wq_du", "wk_dv", "wv_dv", "wr_du")),
    ("kv_proj", ("key_proj", "value_proj")),
    ("wk_weights_proj", INDEXER := ("wk", "weights_proj")),
)
"""Siblings that engines load into one weight, with one global scale, and the name of the whole.

That of an indexer of sparse attention is never quantized: vLLM turns FP8 of its parts into BF16.
Source: `packed_modules_mapping` and `stacked_params_mapping` of vLLM's models.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mapper:
    """How an engine rewrites names: each rule that fits, in this order."""

    regex: Mapping[str, str] = field(default_factory=dict)
    substr: Mapping[str, str] = field(default_factory=dict)
    prefix: Mapping[str, str] = field(default_factory=dict)
    suffix: Mapping[str, str] = field(default_factory=dict)

    def rename(self, name: str) -> str:
        """Return the engine's spelling of a tensor's name, or of an entry of a list."""
        for pattern, new in self.regex.items():
            name = re.sub(pattern, new, name)
        for old, new in self.substr.items():
            name = name.replace(old, new, 1)
        for old, new in self.prefix.items():
            if name.startswith(old):
                name = new + name[len(old) :]
        for old, new in self.suffix.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFamily:
    """How an engine spells the layers of an architecture."""

    fused: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(reversed(FUSED)))
    """Layers that are one, by the name of the whole."""
    mapper: Mapper | None = None
    """None where names stay as they are; then a final `*` in a list is no more than a wildcard."""
    experts: tuple[str, ...] = ()
    """Names of an expert's projections that the loader takes, where it names them itself."""
    never_asked: frozenset[str] = frozenset()
    """Last parts of names of layers that the engine builds unquantized without asking."""

    def rename(self, module: str) -> str:
        """Return the engine's name of a module of the files."""
        if self.mapper is None:
            return module
        return self.mapper.rename(f"{module}.weight").removesuffix(".weight")

    def rename_entry(self, entry: str) -> str:
        """Return the engine's spelling of an entry of a list."""
        return self.mapper.rename(entry) if self.mapper else entry

    def parts_of(self, name: str) -> tuple[str, ...]:
        """Return the names of a fused layer's parts, as engines make them; of others, nothing."""
        last = name.rpartition(".")[2]
        return tuple(name.replace(last, part) for part in self.fused.get(last, ()))


USUAL = EngineFamily(mapper=Mapper())
"""What holds for most models, for those that are not known."""


def fused_of(last: str, siblings: Container[str]) -> str | None:
    """Return the layer that engines make of a layer and those beside it; None where it is alone.

    Args:
        last: last part of its name.
        siblings: those of all layers beside it, its own among them.
    """
    wholes = [(whole, parts) for whole, parts in FUSED if last in parts]
    counts = {whole: sum(part in siblings for part in parts) for whole, parts in wholes}
    complete = (whole for whole, parts in wholes if counts[whole] == len(parts))
    return next(complete, next((whole for whole, count in counts.items() if count > 1), None))


class EngineLayer(NamedTuple):
    """One layer of the running engine and the modules of the files that it is made of."""

    name: str
    members: tuple[str, ...]
    is_routed: bool = False

    @property
    def last(self) -> str:
        """Return the last part of its name."""
        return self.name.rpartition(".")[2]


def engine_layers(modules: Iterable[str], family: EngineFamily) -> Iterator[EngineLayer]:
    """Yield the engine's layers; experts of a layer are one."""
    members: dict[tuple[str, bool], list[str]] = defaultdict(list)
    paths: dict[str, str] = {}  # thousands of experts share one
    others: dict[str, str] = {}
    for module in modules:
        if found := _EXPERT.fullmatch(module):
            path = found["experts"]
            if path not in paths:
                paths[path] = family.rename(path)
            members[paths[path], True].append(module)
        else:
            others[family.rename(module)] = module
    for name, module in others.items():
        whole = _whole(name, others, family)
        members[whole, whole.rpartition(".")[2] == "experts"].append(module)
    for (name, is_routed), found_members in members.items():
        yield EngineLayer(name, tuple(found_members), is_routed)


def _whole(name: str, names: Container[str], family: EngineFamily) -> str:
    """Return the fused layer that a layer is a part of: one that is whole, else the family's."""
    parent, dot, last = name.rpartition(".")
    every = (*family.fused.items(), *FUSED)
    wholes = {whole: parts for whole, parts in every if last in parts}
    complete = (w for w, parts in wholes.items() if all(parent + dot + p in names for p in parts))
    expected = (whole for whole in wholes if last in family.fused.get(whole, ()))
    return parent + dot + next(complete, next(expected, last))
