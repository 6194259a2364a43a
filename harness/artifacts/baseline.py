"""What a kept baseline was made from, and how alike its two runs are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from harness.artifacts.recipe import EngineSpec
from harness.artifacts.store import digest_of


class Change(NamedTuple):
    """One ingredient that is no longer what it was."""

    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.what} was '{self.old}' and is '{self.new}'"


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineInputs:
    """Everything that decides a baseline's answers, in the clear."""

    model: str
    """As typed; the digest decides."""
    model_digest: str
    suite: str
    suite_digest: str
    engine: EngineSpec
    """Its identity: without the places where things lie."""
    versions: Mapping[str, str]
    """Of harness and of the packages that change numbers."""
    architecture: Mapping[str, str]
    """What the model's configuration says of its shape; follows from the model's digest."""

    @property
    def key(self) -> str:
        """Return the digest that names the entry."""
        how = digest_of(self.suite_digest, self.engine, self.versions)
        return digest_of(self.model_digest, how)

    def changes(self, now: "BaselineInputs") -> Iterator[Change]:
        """Yield what is different in `now`, the model and the suite first."""
        yield from _change("the model's digest", self.model_digest[:12], now.model_digest[:12])
        old, new = self.suite_digest[:12], now.suite_digest[:12]
        yield from _change("the suite", f"{self.suite} {old}", f"{now.suite} {new}")
        for field in fields(EngineSpec):
            old, new = getattr(self.engine, field.name), getattr(now.engine, field.name)
            name = "engine" if field.name == "name" else f"the engine's {field.name}"
            yield from _change(name.replace("_", " "), _spelled(old), _spelled(new))
        for package in sorted(self.versions.keys() | now.versions.keys()):
            old, new = (v.get(package, "none") for v in (self.versions, now.versions))
            yield from _change(f"the version of {package}", old, new)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerun:
    """How the baseline's second run (A/A) differs from its first: noise and nothing else."""

    share: float
    """Of each task's items that were asked again, from its beginning."""
    num_items: int
    num_flips: int
    """Items whose score differs between the two runs."""

    @property
    def flip_rate(self) -> float:
        """Return the share of the items that differ."""
        return self.num_flips / self.num_items if self.num_items else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineEntry:
    """One baseline in the store, as its entry.json says."""

    inputs: BaselineInputs
    created: str
    """When it was measured, UTC, ISO 8601."""
    num_items: int
    rerun: Rerun | None
    """None where it was run once."""


def _change(what: str, old: str, new: str) -> Iterator[Change]:
    if old != new:
        yield Change(what, old, new)


def _spelled(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
