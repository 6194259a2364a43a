"""Would an engine take each layer for what the files hold? Its own rules, step by step.

What the ignore list says is translated as the engine does it at start, every layer is given the
engine's name, and the engine's question is asked: is this layer quantized?

Source: vLLM 0.25.0 to 0.33.0: `ModelOptQuantConfigBase.apply_vllm_mapper`, `is_layer_excluded`,
`is_layer_skipped`; `should_ignore_layer`, `find_matched_target`, `get_moe_method`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from harness.formats.compressed import Group, hits, names_every_linear
from harness.verify.engines import Engine, EngineFamily
from harness.verify.modules import expert_of


class EngineLayer(NamedTuple):
    """One layer of the running engine and the modules of the files that it is made of."""

    name: str
    members: tuple[str, ...]
    is_routed: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """The engine's names of the parts of a fused layer; the layer's own name of any other."""
        parent = self.name.rpartition(".")[0]
        lasts = [member.rpartition(".")[2] for member in self.members]
        return tuple(f"{parent}.{last}" if parent else last for last in lasts)


def engine_layers(modules: Iterable[str], family: EngineFamily) -> Iterator[EngineLayer]:
    """Return the engine's layers; experts of a layer are one."""
    members: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for module in modules:
        members[_name_of(module, family)].append(module)
    for (name, is_routed), found in members.items():
        yield EngineLayer(name, tuple(found), is_routed)


def _name_of(module: str, family: EngineFamily) -> tuple[str, bool]:
    expert = expert_of(module)
    path = translate(expert.experts if expert else module, family)
    if expert or path.endswith(".experts"):
        return path, True
    parent, _, last = path.rpartition(".")
    whole = next((w for w, parts in family.fused.items() if last in parts), last)
    return (f"{parent}.{whole}" if parent else whole), False


def translate(name: str, family: EngineFamily) -> str:
    """Return the engine's name of a module."""
    for in_files, in_engine in family.prefixes:
        if f"{name}.".startswith(in_files):
            return in_engine.removesuffix(".") + f".{name}"[len(in_files) :]
    return name


class Asked(NamedTuple):
    """The engine's answer about a layer."""

    is_quantized: bool
    is_split: bool = False
    """The list names some parts of a fused layer and not others: the engine stops."""


class ModeloptList:
    """The ignore list of a checkpoint in modelopt's layout, as the engine keeps it."""

    def __init__(self, ignore: Iterable[str], family: EngineFamily) -> None:
        self._family = family
        self._entries = [_translate_entry(e, family) for entry in ignore for e in _split(entry)]

    def ask(self, layer: EngineLayer) -> Asked:
        """Return whether the engine would quantize a layer."""
        skipped = self._is_skipped(layer)
        if skipped is None:
            return Asked(is_quantized=True, is_split=True)
        rest = layer.name.removeprefix("language_model.")
        excluded = skipped or any(
            entry in layer.name or entry in rest or fnmatchcase(layer.name, entry)
            for entry in self._entries
        )
        return Asked(is_quantized=not excluded)

    def _is_skipped(self, layer: EngineLayer) -> bool | None:
        name, last = layer.name, layer.name.rpartition(".")[2]
        if last in self._family.fused and name not in self._entries:
            found = {part in self._entries for part in layer.parts}
            return found.pop() if len(found) == 1 else None
        if last not in self._family.fused and "experts" in name:
            return any(name in entry for entry in self._entries if "experts" in entry)
        return name in self._entries


def _split(entry: str) -> tuple[str, ...]:
    if len(entry) > 1 and entry.endswith("*") and not entry.endswith(".*"):
        return (entry[:-1], f"{entry[:-1]}.*")
    return (entry,)


def _translate_entry(entry: str, family: EngineFamily) -> str:
    """Rewrite the beginning of an entry; one without the dot behind it stays as it is."""
    for in_files, in_engine in family.prefixes:
        if entry.startswith(in_files):
            return in_engine + entry[len(in_files) :]
    return entry


class CompressedList:
    """Ignore list and groups of a checkpoint in the layout of compressed-tensors."""

    def __init__(
        self, ignore: Iterable[str], groups: Iterable[Group], engine: Engine, family: EngineFamily
    ) -> None:
        self._engine, self._family = engine, family
        self._ignore = [self._translated(entry) for entry in ignore]
        self._targets = [self._translated(t) for group in groups for t in group.targets]

    def ask(self, layer: EngineLayer) -> Asked:
        """Return whether the engine would quantize a layer."""
        if layer.is_routed:
            names = [f"{layer.name}.0.{part}" for part in self._family.experts[:3]]
            answers = {self._ask(name, (name,)) for name in names}
            if len(answers) > 1:
                return Asked(is_quantized=True, is_split=True)
            return answers.pop()
        return self._ask(layer.name, layer.parts)

    def _ask(self, name: str, parts: tuple[str, ...]) -> Asked:
        if name in self._ignore or (self._engine.is_whole_by_regex and self._is_ignored(name)):
            return Asked(is_quantized=False)
        ignored = {self._is_ignored(part) for part in parts}
        if len(ignored) > 1:
            return Asked(is_quantized=True, is_split=True)
        return Asked(is_quantized=not ignored.pop() and self._is_targeted(name, parts))

    def _is_ignored(self, name: str) -> bool:
        return any(hits(name, entry) for entry in self._ignore)

    def _is_targeted(self, name: str, parts: tuple[str, ...]) -> bool:
        if any(hits(name, target) for target in self._targets):
            return True
        if all(any(hits(part, target) for target in self._targets) for part in parts):
            return True
        is_head = name.rpartition(".")[2] == "lm_head"
        return not is_head and any(map(names_every_linear, self._targets))

    def _translated(self, entry: str) -> str:
        is_path = "." in entry and not entry.startswith("re:")
        return _translate_entry(entry, self._family) if is_path else entry


def unknown_projections(
    modules: Iterable[str], family: EngineFamily
) -> Mapping[str, tuple[str, ...]]:
    """Return, by experts' path, the projections whose names the loader does not take."""
    found: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        expert = expert_of(module)
        if expert and expert.projection not in family.experts:
            found[expert.experts].add(expert.projection)
    return {path: tuple(sorted(names)) for path, names in found.items()}
