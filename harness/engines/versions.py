"""Which vLLM spells layers how, and loads what: what was asked of each version, as data.

vllm.json holds, for each version, every architecture that it knows (scripts/engine_names.py asks a
version for it). An architecture or a version that is not there is not known here; then what holds
for most models is taken (`USUAL`), and a check says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from harness.artifacts import EngineSpec
from harness.engines.declaration import Declaration
from harness.engines.layers import USUAL, EngineFamily, Mapper
from harness.engines.rules import LATEST, Dialect, Rules
from harness.errors import UsageError
from harness.reading import bounds, read_json_object

WIDTH_MULTIPLE = 32
"""NVFP4 layers of other input widths are padded wrongly by some kernels."""
_DIALECTS = {
    "vllm==0.25.0": Dialect(
        whole_by_regex=False,
        fused_before_class=False,
        experts=("gate_proj", "up_proj", "down_proj"),
    )
}


class Engine(NamedTuple):
    """One version of an engine, or what holds for most."""

    name: str
    families: Mapping[str, EngineFamily]
    """By architecture."""
    dialect: Dialect = LATEST
    renames: bool = True
    """Whether names are rewritten as this version does it; else they stay as in the files."""

    def family_of(self, config: Mapping[str, object]) -> EngineFamily | None:
        """Return how the engine spells a model's layers; None if its architecture is not known.

        A model around another one, such as one that sees, has the layers of both.
        """
        outer, inner = (self._named(part) for part in (config, config.get("text_config")))
        if outer is None:
            return None
        inner = inner or outer
        return replace(
            outer,
            mapper=outer.mapper if self.renames else Mapper(),
            fused={**inner.fused, **outer.fused},
            never_asked=outer.never_asked | inner.never_asked,
            experts=outer.experts or inner.experts,
        )

    def rules(self, declaration: Declaration, config: Mapping[str, object]) -> Rules:
        """Return what a declaration means to this engine for a model."""
        return Rules(declaration, self.family_of(config) or USUAL, self.dialect)

    def _named(self, config: object) -> EngineFamily | None:
        names = config.get("architectures") if isinstance(config, Mapping) else None
        names = names if isinstance(names, list) else []
        return next((self.families[str(n)] for n in names if str(n) in self.families), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Data:
    """The data file."""

    families: list[EngineFamily]
    versions: Mapping[str, Mapping[str, int]]


def engine_of(spec: EngineSpec) -> str | None:
    """Return the engine of a run as `find_engine` takes it; None where its rules are not known."""
    name = f"vllm=={(spec.version or '').partition('+')[0]}"
    return name if name in _data().versions else None


def find_engine(name: str) -> Engine:
    """Return what is known about an engine's version.

    Raises:
        UsageError: nothing is.
    """
    wanted = name.strip().lower()
    if wanted not in known_engines():
        message = (
            f"'{name}' is no engine whose names are known; known are {', '.join(known_engines())}. "
            "Leave --engine out to check what holds for all of them."
        )
        raise UsageError(message)
    return _engine(wanted)


def any_engine() -> Engine:
    """Return what is taken to hold where no engine is named: the newest, without its names."""
    return _engine(known_engines()[-1])._replace(name="any engine", renames=False)


def known_engines() -> tuple[str, ...]:
    """Return the versions that are known, oldest first."""
    return tuple(_data().versions)


@cache
def _engine(name: str) -> Engine:
    data = _data()
    families = {a: data.families[number] for a, number in data.versions[name].items()}
    return Engine(name, families, _DIALECTS.get(name, LATEST))


@cache
def _data() -> _Data:
    path = Path(__file__).with_name("vllm.json")
    return TypeAdapter(_Data).validate_python(read_json_object(path, most=bounds.INDEX_BYTES))
