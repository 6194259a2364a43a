"""How near a quantized weight is to its source, found out while its codes are read.

A piece of a weight is some whole rows: their values and those of the source lie side by side in
memory that fits a core's cache, and leave three sums behind. Only numpy, and only what lets other
threads run meanwhile; no torch and no BLAS, which would start threads of their own in each of ours.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.verify.dequantize import Coded, Rows, Weight
from harness.verify.stored import Buffers, Bytes, Floats, StoredPart, StoredTensors, fill_floats

_MAX_GAIN_ERROR = 0.1
_PIECE_ITEMS = 1 << 20
"""Weights in one step. Fewer fit a core's second cache better, but numpy is called as often as
there are steps, and threads wait for each other's calls."""
_DOT_ITEMS = 1 << 11
"""Summed as float32, and their sums as float64: exact enough that no cut in pieces shows."""
_FLOAT_BYTES = 4
_Sums = NDArray[np.float64]


class Fit(NamedTuple):
    """How near a dequantized weight is to its source."""

    error: float
    """Root of the summed squared differences over that of the source's squares."""
    gain: float
    """Factor by which the weight is larger than its source, by least squares."""

    def is_within(self, bound: float) -> bool:
        """Return whether the weight is what rounding makes of its source."""
        return self.error <= bound and abs(self.gain - 1) <= _MAX_GAIN_ERROR


class Fitting:
    """Takes the codes of a weight, piece by piece, and says how near it is."""

    def __init__(
        self, weight: Coded, checkpoint: StoredTensors, part: StoredPart, source: StoredTensors
    ) -> None:
        self._weight, self._checkpoint = weight, checkpoint
        self._part, self._source = part, source
        self._dtype = source.headers[part.tensor].dtype
        self._width = weight.shape[1]
        self._row_bytes = checkpoint.row_bytes(weight.codes)
        self._source_row_bytes = source.row_bytes(part)
        self._rows: Rows | None = None
        self._first = 0
        self._sums: _Sums = np.zeros(3)
        # What is not contiguous is read from its first byte to its last, so once.
        num_items = math.prod(part.shape) if part.strides else _PIECE_ITEMS
        num_rows = max(num_items // max(self._width, 1), 1)
        self.piece_bytes = max(num_rows * self._row_bytes, 1)

    def add(self, codes: Bytes, buffers: Buffers) -> None:
        """Take the next rows."""
        if self._rows is None:
            self._rows = Rows(self._weight, self._checkpoint, buffers)
        first = self._first
        num_rows = codes.size // self._row_bytes
        self._first = last = first + num_rows
        room = buffers.room("values", 2 * num_rows * self._width * _FLOAT_BYTES)
        both = room.view(np.float32).reshape(2, -1)
        self._rows.fill(both[0], codes, (first, last), both[1])
        content = buffers.room("source", num_rows * self._source_row_bytes)
        self._source.fill(content, self._part, first * self._source_row_bytes)
        fill_floats(both[1], content, self._dtype)
        self._sums += _sums(both)

    def fit(self) -> Fit:
        """Return how near all rows were."""
        return _fit(self._sums)


def pieces_of(
    weight: Coded, checkpoint: StoredTensors, part: StoredPart, source: StoredTensors
) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield the first row of some, their values and those of the source; files are held open."""
    height, width = weight.shape
    values, step = Rows(weight, checkpoint, Buffers()), max(1, _PIECE_ITEMS // width)
    for first in range(0, height, step):
        rows = (first, min(first + step, height))
        shape = (rows[1] - first, width)
        mine, room = np.empty(shape, np.float32), np.empty(shape[0] * width, np.float32)
        values.fill(mine.reshape(-1), checkpoint.read(weight.codes, rows), rows, room)
        yield first, mine, source.floats(part, rows)


def fit_of(weight: Weight, source: Floats) -> Fit:
    """Return how near the first rows of a weight are to those of its source."""
    both = np.stack([weight.values().ravel(), source.ravel()])
    return _fit(_sums(both))


def _sums(both: Floats) -> _Sums:
    """Return the summed products with the source, its squares, and the squared differences.

    Args:
        both: the weight's values, which are replaced by the differences, and the source's.
    """
    found = np.empty(3)
    found[:2] = _dots(both, both[1])
    np.subtract(both[0], both[1], out=both[0])
    found[2:] = _dots(both[:1], both[0])
    return found


def _dots(both: Floats, one: Floats) -> _Sums:
    """Return the sum of each row's products with `one`.

    By einsum, for numpy's vecdot and matmul keep all other threads waiting.
    """
    num_even = one.size // _DOT_ITEMS * _DOT_ITEMS
    rows = both[:, :num_even].reshape(len(both), -1, _DOT_ITEMS)
    dots = np.einsum("kij,ij->ki", rows, one[:num_even].reshape(-1, _DOT_ITEMS))
    found: _Sums = np.add.reduce(dots, axis=1, dtype=np.float64)
    if num_even < one.size:
        found += np.einsum("kj,j->k", both[:, num_even:], one[num_even:])
    return found


def _fit(sums: _Sums) -> Fit:
    product, squared, squared_error = map(float, sums)
    if squared == 0:
        return Fit(float(squared_error > 0), 1.0)
    return Fit((squared_error / squared) ** 0.5, product / squared)
