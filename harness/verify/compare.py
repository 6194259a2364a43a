"""The weights of a checkpoint beside those of the model that it was made from.

Runs inside the one pass over the data: each piece of a weight that is read is held against its part
of the source, read too, and only a few numbers are kept. A quantized weight must be near its source
(relative error, and gain: the factor by which it is too large); everything else must be the same
bytes. What was found is collected in the order of the files, whichever thread found it first; where
a weight is not near, the cause is looked for then.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TensorHeader
from harness.verify.causes import explain
from harness.verify.dequantize import Coded, find_weight
from harness.verify.fitting import Fit, Fitting
from harness.verify.layouts import Layout
from harness.verify.origin import Pair, SourceTensors, copied_from, source_part
from harness.verify.shards import ITEM_BYTES, Entry
from harness.verify.stored import (
    Buffers,
    Bytes,
    Floats,
    StoredPart,
    StoredTensors,
    is_number,
    to_floats,
)

_COPIED_BYTES = 1 << 18
_WORD_BYTES = 8
_MAX_EXPLAINED = 16
_BOUNDS = (("MXFP4", 0.3), ("NVFP4", 0.25), ("", 0.08))
"""Largest relative error by algorithm, the first that is a part of its name.

Rounding to nearest of E4M3 changes a normal value by 1/16 at most. E2M1 changes a value by a fifth
at most where it is large, and blocks of 16 whose values are all alike are the worst case; ordinary
weights come out at 0.09 to 0.1, and 0.11 to 0.12 with steps that are powers of two.
"""

Exponents = NDArray[np.int32]
_ROUNDING = {"F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest relative error of rounding to nearest."""


class Misfit(NamedTuple):
    """A quantized weight that is not near its source."""

    module: str
    fit: Fit | None
    """None where shapes or missing scales forbid the comparison."""
    cause: str


class Fitted(NamedTuple):
    """A quantized weight that is near its source."""

    algo: str
    fit: Fit
    weight: Coded
    powers: tuple[Exponents, Exponents] | None = None
    """Of two, in rows and columns: what the source's is times these."""


class Near(NamedTuple):
    """What was found out about a quantized weight."""

    module: str
    algo: str
    weight: Coded
    fit: Fit | None
    """None where the shapes differ."""
    shapes: str


class Copy(Enum):
    """What an unquantized tensor turned out to be."""

    SAME = "same"
    ROUNDED = "rounded"
    """Its distance from the source is that of rounding one plus the value."""
    CHANGED = "changed"


class Copied(NamedTuple):
    """What was found out about an unquantized tensor."""

    name: str
    copy: Copy


Outcome = Near | Copied


class TensorComparison(Protocol):
    """Of one tensor: it gets all of the tensor's bytes, in their order, and says what it found."""

    piece_bytes: int
    """As many bytes it wants at once, but for the last piece."""

    def add(self, piece: Bytes, buffers: Buffers) -> None:
        """Take the next bytes; they are gone after the call."""

    def outcome(self) -> Outcome:
        """Return what was found, after the last piece."""


def bound_of(algo: str) -> float:
    """Return the largest relative error that rounding to a format explains."""
    return next(bound for part, bound in _BOUNDS if part in algo)


class Comparison:
    """Makes the comparison of each tensor, and collects what they find out."""

    def __init__(self, checkpoint: StoredTensors, source: SourceTensors) -> None:
        self.checkpoint, self.source = checkpoint, source
        self.fits: dict[str, Fitted] = {}
        """By module, of those that are near."""
        self.misfits: list[Misfit] = []
        self.misscaled: list[Misfit] = []
        """Of those that are near, which have other scales (`scaled.py`)."""
        self.changed: list[str] = []
        """Unquantized tensors that are not what the source has."""
        self.rounded: list[str] = []
        """Vectors whose distance from the source is that of rounding one plus the value."""
        self.num_copied = 0
        self.num_folded = 0
        """Of those, which differ by powers of two that change nothing (`folds.py`)."""
        self.num_refolded = 0
        """Of the quantized weights, the same."""

    def quantized(self, module: str, algo: str, layout: Layout) -> TensorComparison | None:
        """Return the comparison of a quantized weight; None where it cannot be compared."""
        weight = find_weight(module, layout, self.checkpoint)
        part = source_part(module, self.source)
        if weight is None or part is None or not is_number(self.source.headers[part.tensor].dtype):
            return None  # checks of shapes, of scales and of names say so
        near = Near(module, algo, weight, None, "")
        if part.shape != weight.shape:
            shapes = f"it is {list(weight.shape)} and its source {list(part.shape)}"
            return _Unlike(near._replace(shapes=shapes))
        return _Quantized(near, Fitting(weight, self.checkpoint, part, self.source))

    def copied(self, name: str, entry: Entry) -> TensorComparison | None:
        """Return the comparison of an unquantized tensor; None where the source lacks it."""
        pairs = copied_from(name, entry.header, self.source)
        return _Unquantized(name, entry, pairs, self) if pairs else None

    def collect(self, outcomes: Iterable[Outcome]) -> None:
        """Take what was found out; the order is that of the findings."""
        for outcome in outcomes:
            if isinstance(outcome, Near):
                self._collect_near(outcome)
                continue
            self.num_copied += 1
            if outcome.copy is not Copy.SAME:
                is_rounded = outcome.copy is Copy.ROUNDED
                (self.rounded if is_rounded else self.changed).append(outcome.name)

    def settle(self, copied: Collection[str], fits: Mapping[str, Fitted]) -> None:
        """Take back what was said of tensors that a proven fold explains.

        Args:
            copied: unquantized tensors.
            fits: quantized weights that are near their source times that of the fold.
        """
        self.changed = [name for name in self.changed if name not in copied]
        self.misfits = [one for one in self.misfits if one.module not in fits]
        self.fits |= fits
        self.num_folded += len(copied)
        self.num_refolded += len(fits)

    def _collect_near(self, near: Near) -> None:
        if near.fit is None:
            self.misfits.append(Misfit(near.module, None, near.shapes))
            return
        bound = bound_of(near.algo)
        if near.fit.is_within(bound):
            self.fits[near.module] = Fitted(near.algo, near.fit, near.weight)
            return
        cause = ""
        if len(self.misfits) < _MAX_EXPLAINED:
            with np.errstate(all="ignore"):  # faulty scales are other checks' business
                cause = explain(near.module, near.weight, self.checkpoint, self.source, bound)
        self.misfits.append(Misfit(near.module, near.fit, cause))


class _Unlike:
    """The comparison of a weight whose source has another shape."""

    piece_bytes = _COPIED_BYTES

    def __init__(self, near: Near) -> None:
        self._near = near

    def add(self, piece: Bytes, buffers: Buffers) -> None:
        """Do nothing."""

    def outcome(self) -> Outcome:
        """Return what the shapes said."""
        return self._near


class _Quantized:
    """The comparison of a quantized weight, by its codes."""

    def __init__(self, near: Near, fitting: Fitting) -> None:
        self._near, self._fitting = near, fitting
        self.piece_bytes = fitting.piece_bytes

    def add(self, piece: Bytes, buffers: Buffers) -> None:
        """Take the next rows."""
        self._fitting.add(piece, buffers)

    def outcome(self) -> Outcome:
        """Return how near the weight is."""
        return self._near._replace(fit=self._fitting.fit())


class _Unquantized:
    """The comparison of a tensor whose bytes must be those of the source."""

    piece_bytes = _COPIED_BYTES

    def __init__(self, name: str, entry: Entry, pairs: tuple[Pair, ...], among: Comparison) -> None:
        self._name, self._header, self._among = name, entry.header, among
        self._parts = [_counterpart(pair, entry.header, among.source) for pair in pairs]
        self._next_part = 0
        num_bytes = entry.end - entry.start
        self._is_same = all(part.start + part.num_bytes <= num_bytes for part in self._parts)
        self._position = 0

    def add(self, piece: Bytes, buffers: Buffers) -> None:
        """Take the next bytes."""
        begin, end = self._position, self._position + piece.size
        self._position = end
        for part in self._parts[self._next_part :]:
            if not self._is_same or part.start >= end:
                return
            first, last = max(part.start, begin), min(part.start + part.num_bytes, end)
            if first < last:
                mine = piece[first - begin : last - begin]
                self._is_same = self._is_part(mine, part, first - part.start, buffers)
            self._next_part += last < end

    def _is_part(self, mine: Bytes, part: "_Counterpart", start: int, buffers: Buffers) -> bool:
        dtype = self._header.dtype
        if dtype != part.dtype and not (is_number(dtype) and is_number(part.dtype)):
            return False
        ours, others = ITEM_BYTES[dtype], ITEM_BYTES[part.dtype]
        theirs = buffers.room("source", mine.size // ours * others)
        self._among.source.fill(theirs, part.source, start // ours * others)
        if dtype == part.dtype:
            return _is_equal(mine, theirs)
        return _is_rounded(to_floats(mine, dtype), to_floats(theirs, part.dtype), dtype)

    def outcome(self) -> Outcome:
        """Return whether all of it was the source's."""
        if self._is_same:
            return Copied(self._name, Copy.SAME)
        is_shifted = (
            len(self._header.shape) == 1 and self._header.dtype in _ROUNDING and self._is_shifted()
        )
        return Copied(self._name, Copy.ROUNDED if is_shifted else Copy.CHANGED)

    def _is_shifted(self) -> bool:
        """Return whether a vector went through 1 + w in its own type and back.

        llmcompressor does so with the norms of families that store them around zero.
        """
        part = self._parts[0].source
        if part.shape != self._header.shape or not is_number(self._parts[0].dtype):
            return False
        source = self._among.source.floats(part)
        stored = self._among.checkpoint.floats(self._among.checkpoint.whole(self._name))
        error = _ROUNDING[self._header.dtype]
        return bool((np.abs(stored - source) <= error * (1 + np.abs(source))).all())


class _Counterpart(NamedTuple):
    """A part of the source, and the bytes of a tensor that it has to be."""

    source: StoredPart
    dtype: str
    start: int
    num_bytes: int
    """As the tensor has them, which may be of another type than the source's."""


def _counterpart(pair: Pair, header: TensorHeader, source: SourceTensors) -> _Counterpart:
    dtype, item_bytes = source.headers[pair.source.tensor].dtype, ITEM_BYTES[header.dtype]
    num_items = math.prod(pair.source.shape)
    start = pair.first_row * (num_items // max(pair.num_rows, 1)) * item_bytes
    return _Counterpart(pair.source, dtype, start, num_items * item_bytes)


def _is_equal(mine: Bytes, theirs: Bytes) -> bool:
    if mine.size % _WORD_BYTES == 0:
        return bool((mine.view(np.uint64) == theirs.view(np.uint64)).all())
    return bool((mine == theirs).all())


def _is_rounded(stored: Floats, source: Floats, dtype: str) -> bool:
    """Return whether values of another type are the source's, rounded once."""
    error = _ROUNDING.get(dtype, 0.0)
    return bool((np.abs(stored - source) <= error * np.abs(source) + np.float32(1e-30)).all())
