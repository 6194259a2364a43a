"""The weights of a checkpoint beside those of the model that it was made from.

Runs inside the one pass over the data: as soon as a weight's bytes are read, its scales and its
part of the source are read too, and only three numbers are kept. A quantized weight must be near
its source (relative error, and gain: the factor by which it is too large); everything else must
be the same bytes. Where a weight is not near, the ways in which files went wrong before are tried
on it, and the one that makes it fit is named.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np

from harness.artifacts import TensorHeader
from harness.verify.dequantize import Weight, read_weight
from harness.verify.layouts import Layout
from harness.verify.modules import expert_of
from harness.verify.origin import Pair, copied_from, source_part
from harness.verify.shards import ITEM_BYTES, Entry
from harness.verify.stored import Bytes, Floats, Part, StoredTensors, to_floats

_CHUNK_ITEMS = 1 << 18
"""Weights in one step: its copies fit a core's cache, and threads seldom wait for each other."""
_MIN_PARALLEL = 4
"""Steps of a weight from which threads are worth their start."""
_SAMPLE_ROWS = 128
"""Causes are tried on the first rows only."""
_MAX_EXPLAINED = 16
_MAX_GAIN_ERROR = 0.1
_BOUNDS = (("MXFP4", 0.3), ("NVFP4", 0.25), ("", 0.08))
"""Largest relative error by algorithm, the first that is a part of its name.

Rounding to nearest of E4M3 changes a normal value by 1/16 at most. E2M1 changes a value by a fifth
at most where it is large, and blocks of 16 whose values are all alike are the worst case; ordinary
weights come out at 0.09 to 0.1, and 0.11 to 0.12 with steps that are powers of two.
"""

_ROUNDING = {"F16": 2.0**-11, "BF16": 2.0**-8}
"""Largest relative error of rounding to nearest."""

NIBBLES = "the two codes of each byte are swapped"
SWIZZLED = "the block scales lie in the 128 x 4 order of a kernel"
TRANSPOSED = "the block scales are transposed"
INVERTED = "the global scale is inverted"


class Fit(NamedTuple):
    """How near a dequantized weight is to its source."""

    error: float
    """Root of the summed squared differences over that of the source's squares."""
    gain: float
    """Factor by which the weight is larger than its source, by least squares."""

    def is_within(self, bound: float) -> bool:
        """Return whether the weight is what rounding makes of its source."""
        return self.error <= bound and abs(self.gain - 1) <= _MAX_GAIN_ERROR


class Misfit(NamedTuple):
    """A quantized weight that is not near its source."""

    module: str
    fit: Fit | None
    """None where shapes or missing scales forbid the comparison."""
    cause: str


def bound_of(algo: str) -> float:
    """Return the largest relative error that rounding to a format explains."""
    return next(bound for part, bound in _BOUNDS if part in algo)


class Comparison:
    """Collects what the pass finds out about weights and their sources."""

    def __init__(self, checkpoint: StoredTensors, source: StoredTensors) -> None:
        self._checkpoint, self.source = checkpoint, source
        self.fits: dict[str, tuple[str, Fit]] = {}
        """Algorithm and fit by module, of those that are near."""
        self.misfits: list[Misfit] = []
        self.changed: list[str] = []
        """Unquantized tensors that are not what the source has."""
        self.rounded: list[str] = []
        """Vectors whose distance from the source is that of rounding one plus the value."""
        self.num_copied = 0

    def quantized(self, module: str, algo: str, layout: Layout) -> Callable[..., None]:
        """Return what looks at a quantized weight's bytes."""

        def look(_name: str, _entry: Entry, content: memoryview) -> None:
            with np.errstate(all="ignore"):  # faulty scales are other checks' business
                self._look(module, algo, layout, content)

        return look

    def _look(self, module: str, algo: str, layout: Layout, content: memoryview) -> None:
        weight = read_weight(content, module, layout, self._checkpoint)
        part = source_part(module, self.source)
        if weight is None or part is None:
            return  # checks of shapes, of scales and of names say so
        if part.shape != weight.shape:
            shapes = f"it is {list(weight.shape)} and its source {list(part.shape)}"
            self.misfits.append(Misfit(module, None, shapes))
            return
        fit = self._fit(weight, part)
        if fit.is_within(bound_of(algo)):
            self.fits[module] = (algo, fit)
        else:
            cause = ""
            if len(self.misfits) < _MAX_EXPLAINED:
                cause = self._cause(module, weight, part, bound_of(algo))
            self.misfits.append(Misfit(module, fit, cause))

    def copied(self, name: str, entry: Entry, content: memoryview) -> None:
        """Look at the bytes of an unquantized tensor."""
        pairs = copied_from(name, entry.header, self.source)
        self.num_copied += 1
        values = np.frombuffer(content, np.uint8)
        if all(self._is_same(values, entry.header, pair) for pair in pairs):
            return
        is_vector = len(entry.header.shape) == 1 and entry.header.dtype in _ROUNDING
        if is_vector and self._is_shifted(values, entry.header, pairs[0].source):
            self.rounded.append(name)
        else:
            self.changed.append(name)

    def _is_shifted(self, content: Bytes, header: TensorHeader, part: Part) -> bool:
        """Return whether a vector went through 1 + w in its own type and back.

        llmcompressor does so with the norms of families that store them around zero.
        """
        if part.shape != header.shape:
            return False
        source = self.source.floats(part)
        distance = np.abs(to_floats(content, header.dtype) - source)
        return bool((distance <= _ROUNDING[header.dtype] * (1 + np.abs(source))).all())

    def _is_same(self, content: Bytes, header: TensorHeader, pair: Pair) -> bool:
        item_bytes = ITEM_BYTES[header.dtype]
        num_items = int(np.prod(pair.source.shape, dtype=np.int64))
        start = pair.first_row * (num_items // max(pair.num_rows, 1)) * item_bytes
        mine = content[start : start + num_items * item_bytes]
        theirs = self.source.read(pair.source)
        dtype = self.source.headers[pair.source.tensor].dtype
        if dtype == header.dtype:
            return bool(np.array_equal(mine, theirs))
        return mine.size == num_items * item_bytes and _is_rounded(
            to_floats(mine, header.dtype), to_floats(theirs, dtype), header.dtype
        )

    def _fit(self, weight: Weight, part: Part, *, sample: bool = False) -> Fit:
        ranges = list(_row_ranges(part, sample=sample))
        add = partial(self._sums, weight, part)
        if len(ranges) < _MIN_PARALLEL:
            sums = [(0.0, 0.0, 0.0), *map(add, ranges)]
        else:
            # numpy lets other threads run; a step has its own bytes, so memory stays bounded
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                sums = list(pool.map(add, ranges))
        squared_error, squared, product = (sum(column) for column in zip(*sums, strict=True))
        if squared == 0:
            return Fit(float(squared_error > 0), 1.0)
        return Fit((squared_error / squared) ** 0.5, product / squared)

    def _sums(
        self, weight: Weight, part: Part, rows: tuple[int, int]
    ) -> tuple[float, float, float]:
        """Return the summed squared differences, squares of the source, and products."""
        with np.errstate(all="ignore"):  # faulty scales are other checks' business
            source = self.source.floats(part, rows).ravel()
            stored = weight.rows(*rows).ravel()
            squared, product = float(np.dot(source, source)), float(np.dot(stored, source))
            stored -= source
            return float(np.dot(stored, stored)), squared, product

    def _cause(self, module: str, weight: Weight, part: Part, bound: float) -> str:
        """Return which known fault explains a weight; empty where none does."""
        for cause, changed in _changes(weight):
            if self._fit(changed, part, sample=True).is_within(bound):
                return cause
        for other in self._relatives(module):
            candidate = source_part(other, self.source)
            if (
                candidate is not None
                and candidate.shape == part.shape
                and self._fit(weight, candidate, sample=True).is_within(bound)
            ):
                return f"it was made from {other}"
        gain = self._fit(weight, part, sample=True).gain
        rescaled = weight._replace(steps=weight.steps / np.float32(gain))
        if gain > 0 and self._fit(rescaled, part, sample=True).is_within(bound):
            return f"its scale is {gain:.3g} times what it should be"
        return ""

    def _relatives(self, module: str) -> Iterator[str]:
        """Yield the layers that a weight may have been mixed up with."""
        parent, _, leaf = module.rpartition(".")
        twins = {"gate_proj": "up_proj", "up_proj": "gate_proj", "w1": "w3", "w3": "w1"}
        twins |= {"k_proj": "v_proj", "v_proj": "k_proj"}
        if leaf in twins:
            yield f"{parent}.{twins[leaf]}"
        expert = expert_of(module)
        if expert is None:
            return
        number = 0
        while source_part(f"{expert.experts}.{number}.{leaf}", self.source) is not None:
            if number != expert.number:
                yield f"{expert.experts}.{number}.{leaf}"
            number += 1


def _row_ranges(part: Part, *, sample: bool) -> Iterator[tuple[int, int]]:
    rows, width = part.shape
    step = max(_CHUNK_ITEMS // max(width, 1), 1)
    end = min(rows, _SAMPLE_ROWS) if sample else rows
    return ((first, min(first + step, end)) for first in range(0, end, step))


def _changes(weight: Weight) -> Iterator[tuple[str, Weight]]:
    """Yield the weight with each known fault undone."""
    if weight.is_packed:
        swapped = np.bitwise_or(weight.codes >> 4, weight.codes << 4).astype(np.uint8)
        yield NIBBLES, weight._replace(codes=swapped)
    rows, columns = weight.steps.shape
    if rows % 128 == 0 and columns % 4 == 0:
        order = weight.steps.reshape(rows // 128, columns // 4, 32, 4, 4).transpose(0, 3, 2, 1, 4)
        yield SWIZZLED, weight._replace(steps=order.reshape(rows, columns))
    if rows > 1 and columns > 1:
        turned = np.ascontiguousarray(weight.steps.reshape(columns, rows).T)
        yield TRANSPOSED, weight._replace(steps=turned)
    # Block scales lie between 0 and 448, so that a global scale g and 1 / g are far apart.
    largest = float(weight.steps.max())
    if largest > 0:
        yield from _inverted(weight, largest)


def _inverted(weight: Weight, largest: float) -> Iterator[tuple[str, Weight]]:
    """Yield the weight with its global scale inverted: the largest block scale is 448 before it."""
    one = np.float32(largest / 448)
    if weight.is_packed and one > 0:
        yield INVERTED, weight._replace(steps=weight.steps / (one * one))


def _is_rounded(stored: Floats, source: Floats, dtype: str) -> bool:
    """Return whether values of another type are the source's, rounded once."""
    error = _ROUNDING.get(dtype, 0.0)
    return bool((np.abs(stored - source) <= error * np.abs(source) + np.float32(1e-30)).all())
