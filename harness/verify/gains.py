"""Whether each row and each column of a weight is what rounding makes of its source's.

A weight that was multiplied with powers of two, row by row and column by column, is near its source
as a whole also where all that those made small is nothing, or anything. So each of its rows and
columns is asked by itself by what it is larger than the source's, and the whole once more with the
powers taken out again.

Shapes: O output features, I input features.
"""

import numpy as np
from numpy.typing import NDArray

from harness.verify.stored import Floats

_BLOCK, _LARGE = 16, 0.25
"""What is no smaller than this share of its block's largest value is near it by itself, rounded;
what is smaller may become nothing, and GPTQ lets it make up for others."""
_GAIN = 2**0.5
"""By how much a row or column may be larger or smaller: what was within it is not when it is halved
or doubled. Rounding to nearest leaves them within 1.3 on a real model, and GPTQ is held to that
(`harness/algorithms/columns.py`)."""
_ERROR = 0.4
"""Largest relative error with the powers taken out, where what they made small has the errors of
what is large beside it. Rounding to nearest comes to 0.14 there, and GPTQ to 0.3."""
_NOTHING = 1 / 24
"""Of a block's largest value: half of E2M1's smallest step, so that all below may become zero."""
_SLACK = 4.0
_Sums = NDArray[np.float64]


class Gains:
    """Takes a weight piece by piece, beside the source times the powers of two."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Have seen nothing of a weight [O, I]."""
        height, width = shape
        self._rows_O = np.zeros((2, height))
        """Products with the source, and the source's squares."""
        self._large_I, self._all_I = np.zeros((2, width)), np.zeros((2, width))
        """The same of columns: of values that are large in their block, and of all."""
        self._errors_I, self._room_I = np.zeros(width), np.zeros(width)
        """Squared differences, and those of a column that may become zero."""
        self._apart = np.zeros(2)
        """Squared differences and the source's squares with the powers taken out."""

    def add(
        self, first: int, mine: Floats, scaled: Floats, powers: tuple[NDArray[np.int32], ...]
    ) -> None:
        """Take rows from `first` on, and the source's times the powers of rows and columns."""
        rows_O, columns_I = powers
        off = mine - scaled
        size, largest = np.abs(scaled), _of_blocks(scaled)
        large = np.where(size >= _LARGE * largest, scaled, 0)
        self._rows_O[:, first : first + len(mine)] += [
            np.einsum("ij,ij->i", one, scaled) for one in (mine, scaled)
        ]
        for sums_I, part in ((self._large_I, large), (self._all_I, scaled)):
            sums_I += [_columns(mine, part), _columns(part, part)]
        self._errors_I += _columns(off, off)
        self._room_I += _columns(largest, largest) * _NOTHING**2
        for number, one in enumerate((off, scaled)):
            plain = np.ldexp(np.ldexp(one, -rows_O[:, None]), -columns_I)
            self._apart[number] += float(_columns(plain, plain).sum())

    def are_near(self) -> bool:
        """Return whether all rows and columns are as they should be."""
        has_large_I = self._large_I[1] > 0
        sums_I = np.where(has_large_I, self._large_I, self._all_I)
        is_nothing_I = (self._all_I[1] <= self._room_I) & (self._errors_I <= _SLACK * self._room_I)
        errors, squares = self._apart
        return bool(
            _near(self._rows_O).all()
            and (_near(sums_I) | is_nothing_I).all()
            and errors <= _ERROR**2 * squares
        )


def _near(sums: _Sums) -> NDArray[np.bool_]:
    """Return where products are about the squares; where both are nothing, too."""
    products, squares = sums
    found: NDArray[np.bool_] = (products * _GAIN >= squares) & (products <= squares * _GAIN)
    return found


def _columns(one: Floats, other: Floats) -> _Sums:
    found: _Sums = np.einsum("ij,ij->j", one, other).astype(np.float64)
    return found


def _of_blocks(scaled: Floats) -> Floats:
    """Return the largest value of each value's block; its own where blocks do not come out even."""
    size = np.abs(scaled)
    if scaled.shape[1] % _BLOCK:
        return size
    largest = size.reshape(len(size), -1, _BLOCK).max(axis=-1)
    found: Floats = np.repeat(largest, _BLOCK, axis=1)
    return found
