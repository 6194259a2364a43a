"""Two checkpoints tensor by tensor: what was added, lost, retyped or given other values.

Files that have the same sha256 are not read. Of the others every tensor is: its bytes are compared,
and where they differ, scales are held against each other value by value, for a scale that moved is
what most broken checkpoints have in common.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.artifacts import TensorChange, TensorGroup, TensorHeader
from harness.errors import HarnessError
from harness.models import sha256_of
from harness.models.headers import read_headers
from harness.verify.modules import is_scale

if TYPE_CHECKING:
    from torch import Tensor

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_NUM_EXAMPLES = 5


class Compared(NamedTuple):
    """What became of the tensors."""

    groups: tuple[TensorGroup, ...]
    note: str
    """How far the files were compared."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One tensor."""

    kind: TensorChange
    shown: str
    ratios: tuple[float, ...] = ()
    num_values: int = 0
    num_changed: int = 0
    num_unusual: int = 0


def compare_checkpoints(a: Path | str, b: Path | str) -> Compared:
    """Compare the weight files of two folders; a text says why there is none."""
    if isinstance(a, str) or isinstance(b, str):
        missing = [f"{n}, {f}" for n, f in (("A", a), ("B", b)) if isinstance(f, str)]
        return Compared((), f"not compared: {'; '.join(missing)}")
    try:
        headers = read_headers(a), read_headers(b)
        changes = dict(_changes(a, b, *headers))
    except HarnessError as error:
        return Compared((), f"not compared: {error}")
    return Compared(_grouped(changes, *headers), _summary(changes, *headers))


def _summary(
    changes: Mapping[str, _Change], a: Mapping[str, TensorHeader], b: Mapping[str, TensorHeader]
) -> str:
    num = len(a.keys() | b.keys())
    if not changes:
        return f"all {num} tensors are the same"
    return f"{len(changes)} of {num} tensors are not the same"


def _changes(
    a: Path, b: Path, ours: Mapping[str, TensorHeader], theirs: Mapping[str, TensorHeader]
) -> Iterator[tuple[str, _Change]]:
    """Yield each tensor that is not the same in both folders."""
    same = _same_files(a, b, ours, theirs)
    with ExitStack() as files:
        left, right = OpenedFiles(a, files), OpenedFiles(b, files)
        for name in dict.fromkeys((*ours, *theirs)):
            mine, other = ours.get(name), theirs.get(name)
            if mine is None or other is None:
                there = mine or other
                kind = TensorChange.LOST if other is None else TensorChange.ADDED
                yield name, _Change(kind, "" if there is None else _typed(there))
            elif (mine.dtype, mine.shape) != (other.dtype, other.shape):
                shown = f"{_typed(mine)} to {_typed(other)}"
                yield name, _Change(TensorChange.RETYPED, shown)
            elif mine.shard not in same or other.shard not in same:
                change = _values(name, mine, left.tensor(name, mine), right.tensor(name, other))
                if change is not None:
                    yield name, change


def _typed(header: TensorHeader) -> str:
    return f"{header.dtype} {'x'.join(map(str, header.shape)) or 'one value'}"


def _same_files(
    a: Path, b: Path, ours: Mapping[str, TensorHeader], theirs: Mapping[str, TensorHeader]
) -> frozenset[str]:
    shards = {h.shard for h in ours.values()} & {h.shard for h in theirs.values()}
    return frozenset(s for s in shards if sha256_of(a / s) == sha256_of(b / s))


class OpenedFiles:
    """The weight files of one folder, each opened when it is first needed."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._files = files
        self._open: dict[str, Any] = {}

    def tensor(self, name: str, header: TensorHeader) -> "Tensor":
        """Return a tensor as it is stored."""
        from safetensors import safe_open  # noqa: PLC0415  takes its time

        if header.shard not in self._open:
            path = self._folder / header.shard
            opened = safe_open(path, framework="pt")
            self._open[header.shard] = self._files.enter_context(opened)
        tensor: Tensor = self._open[header.shard].get_tensor(name)
        return tensor


def _values(name: str, header: TensorHeader, a: "Tensor", b: "Tensor") -> _Change | None:
    """Compare two tensors of one type and shape; None where every byte is the same."""
    import torch

    left, right = (
        t.contiguous().reshape(-1).view(torch.uint8).reshape(max(t.numel(), 1), -1) for t in (a, b)
    )
    is_other = (left != right).any(dim=1)
    num_changed = int(is_other.sum())
    if not num_changed:
        return None
    found, num_unusual = ratios(a, b) if is_scale(name, header.dtype) else ((), 0)
    return _Change(TensorChange.CHANGED, _typed(header), found, a.numel(), num_changed, num_unusual)


def ratios(a: "Tensor", b: "Tensor") -> tuple[tuple[float, ...], int]:
    """Return the smallest, median and largest of B's values over A's, and how many have no ratio.

    Values that are the same in both are left out: they would hide how far the others moved.
    """
    import torch

    if a.dtype is torch.uint8:  # exponents of two
        ratio = torch.exp2(b.reshape(-1).float() - a.reshape(-1).float())
        moved = ratio[ratio != 1]
        return _ends(moved), 0
    left, right = a.reshape(-1).double(), b.reshape(-1).double()
    usable = (left > 0) & (right > 0) & left.isfinite() & right.isfinite()
    moved = usable & (left != right)
    return _ends(right[moved] / left[moved]), int((~usable & (left != right)).sum())


def _ends(ratio: "Tensor") -> tuple[float, ...]:
    if not ratio.numel():
        return ()
    return float(ratio.min()), float(ratio.median()), float(ratio.max())


def _grouped(
    changes: Mapping[str, _Change],
    ours: Mapping[str, TensorHeader],
    theirs: Mapping[str, TensorHeader],
) -> tuple[TensorGroup, ...]:
    """Return the changes by name without numbers; scales first, then the most tensors."""
    groups: dict[tuple[str, TensorChange], list[tuple[str, _Change]]] = defaultdict(list)
    for name, change in changes.items():
        groups[pattern_of(name), change.kind].append((name, change))
    alike: dict[str, int] = defaultdict(int)
    for name in ours.keys() & theirs.keys() - changes.keys():
        alike[pattern_of(name)] += 1
    headers = {**theirs, **ours}
    found = [
        _group(pattern, members, alike[pattern], headers)
        for (pattern, _), members in groups.items()
    ]
    return tuple(sorted(found, key=lambda group: (not group.is_scale, -group.num_tensors)))


def pattern_of(name: str) -> str:
    """Return a tensor's name with a star for each number."""
    return _NUMBER.sub("*", name)


def _group(
    pattern: str,
    members: list[tuple[str, _Change]],
    num_alike: int,
    headers: Mapping[str, TensorHeader],
) -> TensorGroup:
    first, change = members[0]
    ratios = [c.ratios for _, c in members if c.ratios]
    values = sum(c.num_values for _, c in members)
    return TensorGroup(
        pattern=pattern,
        change=change.kind,
        num_tensors=len(members),
        num_alike=num_alike,
        is_scale=is_scale(first, headers[first].dtype),
        ratio=(
            (min(r[0] for r in ratios), median(r[1] for r in ratios), max(r[2] for r in ratios))
            if ratios
            else None
        ),
        share=sum(c.num_changed for _, c in members) / values if values else None,
        num_unusual=sum(c.num_unusual for _, c in members),
        examples=tuple(f"{name}: {c.shown}" for name, c in members[:_NUM_EXAMPLES]),
    )
