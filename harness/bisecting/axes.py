"""What is bisected over: engines, checkpoints, commits; in this order."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from harness.errors import UsageError

_FEWEST = 2


class Kind(StrEnum):
    """What the points of an axis are."""

    ENGINE = "engine"
    CHECKPOINT = "checkpoint"
    COMMIT = "commit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One state of one thing."""

    name: str
    """Short, and a part of a folder's name: a version, a number, 12 digits of a commit."""
    title: str
    """For people."""
    value: str
    """A folder, a version to install, or a whole commit id."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Points from the good end to the bad one."""

    kind: Kind
    points: tuple[Point, ...]


def engine_axis(listed: str) -> Axis:
    """Return the engines of a text such as `0.31.0,0.32.0,nightly=/envs/nightly`.

    Raises:
        UsageError: there are fewer than two, one is named twice, or a folder is none.
    """
    points = []
    for entry in _entries(listed, "--engines"):
        name, _, place = entry.partition("=")
        _refuse_odd(name)
        if place and not Path(place).exists():
            message = f"--engines: '{place}' is no environment. Correct the path."
            raise UsageError(message)
        value = str(Path(place).absolute()) if place else name
        points.append(Point(name=name, title=entry, value=value))
    return Axis(kind=Kind.ENGINE, points=_distinct(points, "--engines"))


def checkpoint_axis(listed: str) -> Axis:
    """Return the checkpoints of a text such as `runs/a/checkpoint,runs/b/checkpoint`.

    Raises:
        UsageError: there are fewer than two, or one is no folder.
    """
    points = []
    for number, entry in enumerate(_entries(listed, "--checkpoints")):
        if not Path(entry).is_dir():
            message = f"--checkpoints: '{entry}' is no folder. Correct the path."
            raise UsageError(message)
        value = str(Path(entry).absolute())
        points.append(Point(name=f"checkpoint{number}", title=entry, value=value))
    return Axis(kind=Kind.CHECKPOINT, points=_distinct(points, "--checkpoints"))


def _entries(listed: str, option: str) -> list[str]:
    entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
    if len(entries) < _FEWEST:
        message = f"{option} has {len(entries)} entry. Name at least two, good first, bad last."
        raise UsageError(message)
    return entries


def _distinct(points: Sequence[Point], option: str) -> tuple[Point, ...]:
    for what in ("name", "value"):
        values = [getattr(point, what) for point in points]
        if doubles := sorted({v for v in values if values.count(v) > 1}):
            message = f"{option} has '{doubles[0]}' twice. Name each once."
            raise UsageError(message)
    return tuple(points)


def _refuse_odd(name: str) -> None:
    plain = name.replace(".", "").replace("-", "").replace("_", "").replace("+", "")
    if not plain.isascii() or not plain.isalnum():
        message = f"--engines: '{name}' is no version or name. Type 0.32.0, or mine=/envs/mine."
        raise UsageError(message)
