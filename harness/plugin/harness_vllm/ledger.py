"""Comparing the tape of a load with the model and with the files."""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from .tape import Span, Tape, Writes


class ParameterPart(NamedTuple):
    """What one tensor of a checkpoint fills."""

    name: str
    span: Span
    """Bytes of the parameter's memory."""
    not_from: re.Pattern[str] | None = None
    """Tensors that fill these bytes for another part: gate and up may share one scale."""


class Parameter(NamedTuple):
    """A parameter that a checkpoint has to fill."""

    tensor: Tensor
    parts: tuple[ParameterPart, ...]
    is_padded: bool
    """A kernel made it larger than the checkpoint's tensors, and the rest has to stay as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconciled:
    """What the files gave and the model took."""

    num_parameters: int
    """Parts of parameters that a checkpoint has to fill."""
    unfilled: tuple[str, ...]
    num_tensors: int
    """Tensors of the files."""
    num_taken: int
    """Tensors of which at least one element reached a parameter."""
    untaken: tuple[str, ...]
    num_set_aside: int
    """Tensors that this deployment leaves alone on purpose."""

    def with_more_parameters(self, number: int, unfilled: Sequence[str]) -> "Reconciled":
        """Count parameters that a checkpoint may leave out all together, but not one by one."""
        if not number:
            return self
        return replace(
            self,
            num_parameters=self.num_parameters + number,
            unfilled=(*self.unfilled, *unfilled),
        )


def reconcile(
    parameters: Sequence[Parameter],
    tape: Tape,
    *,
    in_files: Iterable[str],
    set_aside: re.Pattern[str] | None,
) -> Reconciled:
    """Find the parts that nothing filled and the tensors that nothing took."""
    unfilled = [
        part.name
        for parameter in parameters
        for part in _unfilled(parameter, tape.writes(parameter.tensor))
    ]
    names = frozenset(in_files)
    left = sorted(names - tape.taken)
    aside = {n for n in left if set_aside is not None and set_aside.search(n)}
    return Reconciled(
        num_parameters=sum(len(p.parts) for p in parameters),
        unfilled=tuple(unfilled),
        num_tensors=len(names),
        num_taken=len(names) - len(left),
        untaken=tuple(n for n in left if n not in aside),
        num_set_aside=len(aside),
    )


def was_written(tape: Tape, tensor: Tensor) -> bool:
    """Return whether a tensor of the files reached this parameter."""
    return bool(tape.writes(tensor).sourced)


def _unfilled(parameter: Parameter, writes: Writes) -> Iterator[ParameterPart]:
    covered = _merged(writes.spans)
    sourced = _merged([span for span, _ in writes.sourced])
    by_span: dict[Span, set[str]] = {}
    for span, names in writes.sourced:
        by_span.setdefault(span, set()).update(names)
    for part in parameter.parts:
        whole = parameter.is_padded or _contains(covered, part.span)
        if not (whole and _touches(sourced, part.span) and _has_own_source(part, by_span)):
            yield part


def _has_own_source(part: ParameterPart, by_span: Mapping[Span, Collection[str]]) -> bool:
    """Return whether not all that filled these bytes was meant for the other part of them."""
    names = by_span.get(part.span)
    if part.not_from is None or not names:
        return True
    return any(part.not_from.search(name) is None for name in names)


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _contains(merged: Sequence[Span], span: Span) -> bool:
    place = bisect_right(merged, (span[0], 1 << 62)) - 1
    return place >= 0 and merged[place][1] >= span[1]


def _touches(merged: Sequence[Span], span: Span) -> bool:
    place = bisect_right(merged, (span[1] - 1, 1 << 62)) - 1
    return place >= 0 and merged[place][1] > span[0]
