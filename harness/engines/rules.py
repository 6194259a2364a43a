"""What an engine takes each layer for: its own question, asked of what a checkpoint declares.

modelopt's list: an entry excludes a layer by its exact name (of a fused layer: by its own or by
all of its parts), by occurring anywhere in the name, or as a wildcard; experts also if their name
occurs in an entry. `prefix*` counts as `prefix` and as `prefix.*`. So an entry can hit more than
was meant, and `*.q_proj` hits nothing, for the layer is called `qkv_proj`.
compressed-tensors: by exact name or regular expression; for all experts of a layer together, by
the name of the first. fp8: by exact name alone.

Source: vLLM 0.25.0 to 0.33.0: `ModelOptQuantConfigBase.is_layer_excluded` and `apply_vllm_mapper`,
`ModelOptMixedPrecisionConfig._resolve_quant_algo`, `is_layer_skipped`, `should_ignore_layer`,
`find_matched_target`, `get_moe_method`, `Fp8Config.get_quant_method`.
"""

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain
from typing import NamedTuple, TypeVar

from harness.engines.algorithms import COMPRESSED, NATIVE_FP8, NATIVE_MXFP4
from harness.engines.compressed import Group, hits, is_path
from harness.engines.declaration import Declaration
from harness.engines.layers import USUAL, EngineFamily, EngineLayer, engine_layers

_NEVER_ASKED = ("vision_tower", "vision_model", "vit_large_projector")
"""Parts of names of what modelopt's loaders build unquantized without asking the list."""
_HEADS = ("lm_head", "head")
_ALWAYS_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_EXPERTS = ("gate_proj", "up_proj", "down_proj")
_WILD = frozenset("*?[\n")
"""With these an entry may be about names that it is no part of; a line's end could join two."""
_T = TypeVar("_T")
_LM, _MULTIMODAL = "language_model.model.", "model.language_model."


class Dialect(NamedTuple):
    """What differs between the versions of an engine."""

    whole_by_regex: bool = True
    """Whether a regular expression may name a fused layer as a whole (compressed-tensors)."""
    fused_before_class: bool = True
    """Whether names of a fused layer's parts in a group come before a class such as `Linear`."""
    experts: tuple[str, ...] | None = None
    """Projections by which experts are looked up in groups; None: as the model's loader does."""


LATEST = Dialect()


class Asked(NamedTuple):
    """The engine's answer about a layer."""

    algorithm: str | None
    """What it takes the layer for; None for unquantized."""
    is_split: bool = False
    """The declaration parts a fused layer: the engine stops."""


class _Split(Exception):  # noqa: N818 -- an answer, no error
    """The parts of a fused layer are declared differently."""


class Rules:
    """What a declaration means to an engine that runs a family of models."""

    def __init__(
        self, declaration: Declaration, family: EngineFamily = USUAL, dialect: Dialect = LATEST
    ) -> None:
        """Translate what is declared, as the engine does at its start."""
        self._declared, self._family, self._dialect = declaration, family, dialect
        self._entries = {entry: self._translated(entry) for entry in declaration.ignore}
        self._all = [one for translated in self._entries.values() for one in translated]
        self._listed = frozenset(self._all)
        self._layers = {
            family.rename_entry(name): layer.algorithm for name, layer in declaration.layers.items()
        }
        self._groups = [
            (group, [family.rename_entry(t) if is_path(t) else t for t in group.targets])
            for group in declaration.groups
        ]

    def never_asked(self, modules: Iterable[str]) -> frozenset[str]:
        """Return the modules that the engine builds unquantized without asking what they are."""
        layers = engine_layers(modules, self._family)
        never = self._family.never_asked
        return frozenset(m for layer in layers if layer.last in never for m in layer.members)

    def layers(self, modules: Iterable[str]) -> Iterator[tuple[EngineLayer, Asked]]:
        """Yield the engine's layers of some modules, each with what it is taken for."""
        for layer in engine_layers(modules, self._family):
            yield layer, self.ask(layer)

    def algorithms(self, modules: Iterable[str]) -> dict[str, str | None]:
        """Return what each module is taken for; the parts of a layer that is parted one by one."""
        found: dict[str, str | None] = {}
        for layer, asked in self.layers(modules):
            for member in layer.members:
                if asked.is_split:
                    asked_alone = self.ask(EngineLayer(self._family.rename(member), (member,)))
                    found[member] = asked_alone.algorithm
                else:
                    found[member] = asked.algorithm
        return found

    def ask(self, layer: EngineLayer) -> Asked:
        """Return what the engine takes a layer for."""
        try:
            return Asked(self._algorithm(layer))
        except _Split:
            return Asked(self._declared.algorithm, is_split=True)

    def first_hits(self, layers: Sequence[EngineLayer]) -> dict[str, EngineLayer]:
        """Return the first layer that each entry of the list is about, or about a part of.

        Entries that are about none are left out.
        """
        named = [(layer, (layer.name, *self._parts(layer))) for layer in layers]
        text = "\n".join(chain.from_iterable(names for _, names in named))
        found = {}
        for entry in self._entries:
            if self._may_hit(entry, text):
                hit = next((one for one, names in named if self._is_hit(entry, one, names)), None)
                if hit is not None:
                    found[entry] = hit
        return found

    def idle_entries(self, modules: Iterable[str]) -> list[str]:
        """Return the entries of the list that are about none of the modules."""
        busy = self.first_hits(list(engine_layers(modules, self._family)))
        return [entry for entry in self._declared.ignore if entry not in busy]

    def hit_modules(self, entry: str, modules: Iterable[str]) -> list[str]:
        """Return the modules that an entry of the list is about."""
        layers = engine_layers(modules, self._family)
        named = ((one, (one.name, *self._parts(one))) for one in layers)
        return [m for one, names in named if self._is_hit(entry, one, names) for m in one.members]

    def _may_hit(self, entry: str, text: str) -> bool:
        """Return whether an entry can be about layers whose names are the lines of a text."""
        return self._declared.layout == COMPRESSED or any(
            one in text or "experts" in one or not _WILD.isdisjoint(one)
            for one in self._entries[entry]
        )

    def _is_hit(self, entry: str, layer: EngineLayer, names: tuple[str, ...]) -> bool:
        """Return whether an entry is about a layer or a part of it, by any of their names."""
        translated = self._entries[entry]
        if self._declared.layout == COMPRESSED:
            return any(hits(n, one) for n in (*names, *layer.members) for one in translated)
        return any(one in names or _matches(layer.name, one) for one in translated)

    def _parts(self, layer: EngineLayer) -> tuple[str, ...]:
        if layer.is_routed:
            experts = self._dialect.experts or self._family.experts or _EXPERTS
            return tuple(f"{layer.name}.0.{part}" for part in experts)
        return self._fused(layer)

    def _fused(self, layer: EngineLayer) -> tuple[str, ...]:
        """Return the parts of a fused layer: as the engine has them, or else as the files do."""
        parts = self._family.parts_of(layer.name)
        held = tuple(map(self._family.rename, layer.members))
        is_known = not parts or len(held) == 1 or not set(held).isdisjoint(parts)
        return parts if is_known else held

    def _translated(self, entry: str) -> tuple[str, ...]:
        family, layout = self._family, self._declared.layout
        if layout == COMPRESSED:
            return (family.rename_entry(entry) if is_path(entry) else entry,)
        is_tree = len(entry) > 1 and entry.endswith("*") and not entry.endswith(".*")
        if layout == NATIVE_FP8 or family.mapper is None or not is_tree:
            return (family.rename_entry(entry),)
        return (family.rename_entry(entry[:-1]), family.rename_entry(f"{entry[:-1]}.*"))

    def _algorithm(self, layer: EngineLayer) -> str | None:
        declared = self._declared
        if declared.layout == COMPRESSED:
            return self._of_groups(layer)
        if declared.layout == NATIVE_MXFP4:
            return declared.algorithm if layer.is_routed else None
        if declared.layout == NATIVE_FP8:
            is_plain = layer.last in _HEADS or self._is_skipped(layer)
            return None if is_plain else self._of_native(layer)
        if self._is_excluded(layer) or any(part in layer.name for part in _NEVER_ASKED):
            return None
        return self._of_layers(layer) if declared.names_layers else declared.algorithm

    def _of_native(self, layer: EngineLayer) -> str | None:
        declared = self._declared
        if not layer.is_routed or not declared.experts_algorithm:
            return declared.algorithm
        # Where layers are named, the experts of the others are as the model's maker left them.
        named = self._of_layers(layer) if self._layers else declared.experts_algorithm
        return named or "MXFP4"

    def _is_excluded(self, layer: EngineLayer) -> bool:
        return self._is_skipped(layer) or any(_matches(layer.name, one) for one in self._all)

    def _is_skipped(self, layer: EngineLayer) -> bool:
        """Ask by exact names.

        Raises:
            _Split: some parts of a fused layer are listed and others are not.
        """
        name, parts = layer.name, self._fused(layer)
        if name in self._listed:
            return True
        if parts:
            return _one({part in self._listed for part in parts})
        if "experts" in name:
            return any(name in entry for entry in self._all if "experts" in entry)
        return False

    def _of_layers(self, layer: EngineLayer) -> str | None:
        """Look a layer up in `quantized_layers`."""
        spellings = _spellings(layer.name)
        if direct := next((self._layers[one] for one in spellings if one in self._layers), None):
            return direct
        parent, _, last = layer.name.rpartition(".")
        always = tuple(f"{parent}.{part}" for part in _ALWAYS_FUSED.get(last, ()))
        for parts in (self._fused(layer), always):
            spelled = (one for part in parts for one in _spellings(part))
            if found := {self._layers[one] for one in spelled if one in self._layers}:
                return _one(found)
        return self._below(spellings) or (self._below((parent,)) if last == "experts" else None)

    def _below(self, parents: tuple[str, ...]) -> str | None:
        beginnings = tuple(f"{parent}." for parent in parents)
        return next((a for name, a in self._layers.items() if name.startswith(beginnings)), None)

    def _of_groups(self, layer: EngineLayer) -> str | None:
        if not layer.is_routed:
            return self._of_one(layer.name, self._fused(layer), ("linear",))
        return _one({self._of_one(n, (), ("linear", "routedexperts")) for n in self._parts(layer)})

    def _of_one(self, name: str, parts: tuple[str, ...], classes: tuple[str, ...]) -> str | None:
        if name in self._listed or (
            (self._dialect.whole_by_regex or not parts) and self._is_ignored(name)
        ):
            return None
        if _one({self._is_ignored(part) for part in parts or (name,)}):
            return None
        group = self._group_of(name, parts, () if name.endswith(_HEADS[0]) else classes)
        return group.algorithm if group else None

    def _is_ignored(self, name: str) -> bool:
        return any(hits(name, entry) for entry in self._all)

    def _group_of(
        self, name: str, parts: tuple[str, ...], classes: tuple[str, ...]
    ) -> Group | None:
        by_class = next(
            (g for g, ts in self._groups if any(t.lower() in classes for t in ts)), None
        )
        for one in (name, *parts[:1]):
            found = next((g for g, ts in self._groups if any(hits(one, t) for t in ts)), None)
            if one != name and not self._dialect.fused_before_class and by_class:
                return by_class
            if found and (one == name or all(map(self._is_targeted, parts))):
                return found
        return by_class

    def _is_targeted(self, name: str) -> bool:
        return any(hits(name, target) for _, targets in self._groups for target in targets)


def _matches(name: str, entry: str) -> bool:
    """Return whether an entry of modelopt's list excludes a layer otherwise than by its name."""
    in_entry = "experts" in name and "experts" in entry and name in entry
    return entry in name or in_entry or (not _WILD.isdisjoint(entry) and fnmatchcase(name, entry))


def _one(answers: set[_T]) -> _T:
    if len(answers) > 1:
        raise _Split
    return answers.pop()


def _spellings(name: str) -> tuple[str, ...]:
    """Return the names under which a layer is looked up in `quantized_layers`."""
    found = [name]
    if name.endswith(".lm_head"):
        found.append("lm_head")
    for one, other in ((_LM, _MULTIMODAL), (_MULTIMODAL, _LM)):
        if name.startswith(one):
            found.append(other + name[len(one) :])
    return tuple(found)
