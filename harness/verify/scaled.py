"""Weights whose scales are another's, or a little off: as a whole too large or too small.

Two experts of a layer with each other's scales cost next to nothing in any score, and are as near
their source as all others. What tells them is their gain. But rounding makes weights smaller, too,
the more the fewer of a block's values its scale can hold: algorithms choose scales that cut off
what is large where inputs make little of it. So a weight whose gain stands out among those of its
format is read once more, and asked by the values alone that its codes can hold. These are as large
as the source's but for what rounding leaves to chance, or its scales are wrong. And they are wrong
in most rows and most columns: where a few of these are larger and the others as they were, GPTQ let
them make up for what inputs with outliers lose.

Shapes: O output features, I input features.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.cores import num_cores
from harness.verify.compare import Comparison, Fitted, Misfit
from harness.verify.dequantize import multiply, read_steps
from harness.verify.fitting import pieces_of
from harness.verify.origin import source_part
from harness.verify.stored import Floats

_USUAL_GAIN_ERROR, _MOST_CUT = 0.03, 0.07
"""How far the median of a format's gains may lie from 1: MXFP4 lies 1.2 % below, NVFP4 0.4 %. Block
scales of NVFP4 that are a tenth too small make it 3.5 %. Codes can then hold 9 % of the values no
more, at least one in each block of 16; where scales are chosen it is 3 to 4 %, and up to 7.6 % of a
weight of few tokens."""
_GAIN_ERROR = 0.01
"""How far a weight's gain may lie from that median, and then that of what it holds from 1.

Rounding to nearest leaves the gains of a checkpoint's weights within 0.4 % of each other (FP8, FP8
blocks, MXFP8, MXFP4 and NVFP4 on a model of 135 million weights and on the canary). GPTQ with the
local Hessian's scales has gains down to 0.975 there, and of what codes can hold 0.995 to 1.003. Two
experts with like weights may have scales that differ by 1.5 %."""
_GAIN_OF_ERROR, _UNEVEN_GAIN_OF_ERROR = 0.08, 0.15
"""The same, as a share of a weight's relative error; and where steps are powers of two, so that the
largest of a block may be anywhere: the gain then follows from how values are spread, 0.988 for most
in MXFP4 and 0.958 where all are as likely. Such scales are never off by a percent."""
_POWERS_OF_TWO = "U8"
"""Type of steps that are such."""
_DEVIATIONS = 4
"""Standard errors of chance, which small weights have much of."""
_FEW = 10
"""Of so many rows or columns one at either end is left out: GPTQ has made few of them much larger,
and a scale that is wrong for less than half of the rows must show."""
_E2M1_MAX, _E4M3_MAX = 6, 448


class _Held(NamedTuple):
    """Of those values of a weight that its codes can hold."""

    gains: tuple[float, float, float]
    """Of all of them, of most rows and of most columns."""
    chance: float
    """Standard error of the first."""
    cut: float
    """Share of all values that are none of them."""


def find_misscaled(comparison: Comparison) -> None:
    """Note near weights whose scales are not theirs; files are held open."""
    by_algo: dict[str, dict[str, Fitted]] = defaultdict(dict)
    for module, fitted in comparison.fits.items():
        by_algo[fitted.algo][module] = fitted
    with ThreadPoolExecutor(num_cores(), "scales") as threads:
        comparison.misscaled = [
            misfit
            for alike in by_algo.values()
            for misfit in _misscaled(alike, comparison, threads)
        ]


def _misscaled(
    alike: Mapping[str, Fitted], comparison: Comparison, threads: Executor
) -> Iterator[Misfit]:
    """Yield those of one format that are."""
    usual = float(np.median([one.fit.gain for one in alike.values()]))
    are_off = abs(usual - 1) > _USUAL_GAIN_ERROR
    middle = 1.0 if are_off else usual
    asked = {m: one for m, one in alike.items() if abs(one.fit.gain - middle) > _GAIN_ERROR}
    each = threads.map(partial(_held, comparison), asked, asked.values())
    for (module, one), held in zip(asked.items(), each, strict=True):
        is_even = comparison.checkpoint.headers[one.weight.scale.tensor].dtype != _POWERS_OF_TWO
        wanted, share = (1.0, _GAIN_OF_ERROR) if is_even else (middle, _UNEVEN_GAIN_OF_ERROR)
        room = max(_GAIN_ERROR, share * one.fit.error, _DEVIATIONS * held.chance)
        is_right = any(abs(gain - wanted) <= room for gain in held.gains)
        # One scale makes all three larger, or all three smaller.
        if not is_right and not min(held.gains) < wanted < max(held.gains):
            cause = f"its scale is {np.median(held.gains):.3f} times what it should be"
            yield Misfit(module, one.fit, cause)
        elif are_off and held.cut > _MOST_CUT:
            cause = f"its scales are so small that codes cannot hold {held.cut:.1%} of its values"
            yield Misfit(module, one.fit, cause)


def _held(comparison: Comparison, module: str, fitted: Fitted) -> _Held:
    """Read a weight once more, beside its source."""
    part, weight = source_part(module, comparison.source), fitted.weight
    if part is None:
        message = f"{module} was compared with its source, which does not have it"
        raise AssertionError(message)
    largest = np.abs(read_steps(weight, comparison.checkpoint))
    largest *= _E2M1_MAX if weight.is_packed else _E4M3_MAX
    height, width = weight.shape
    rows_O, columns_I = np.zeros((2, height)), np.zeros((2, width))
    """Products with the source, and the source's squares."""
    squared_errors, num_held = 0.0, 0
    for first, mine, theirs in pieces_of(weight, comparison.checkpoint, part, comparison.source):
        rows = (first, first + len(mine))
        wanted = _times(theirs, fitted, rows)
        room = np.ones_like(mine)
        multiply(room, largest, rows, height)
        is_held = np.abs(wanted) <= room
        num_held += int(is_held.sum())
        wanted = np.where(is_held, wanted, 0)
        product, square = mine * wanted, np.square(wanted)
        for sums, one in enumerate((product, square)):
            rows_O[sums, slice(*rows)] = one.sum(axis=1, dtype=np.float64)
            columns_I[sums] += one.sum(axis=0, dtype=np.float64)
        squared_errors += float(np.square(product - square).sum(dtype=np.float64))
    products, squares = map(float, rows_O.sum(axis=1))
    cut = 1 - num_held / (height * width)
    if not squares:
        return _Held((1.0, 1.0, 1.0), 0.0, cut)
    gains = (products / squares, _most(rows_O), _most(columns_I))
    return _Held(gains, squared_errors**0.5 / squares, cut)


def _most(sums: NDArray[np.float64]) -> float:
    """Return the mean gain of rows, or of columns, but for the tenth at either end."""
    products, squares = sums[:, sums[1] > 0]
    gains = np.sort(products / squares)
    few = len(gains) // _FEW
    return float(gains[few : len(gains) - few].mean())


def _times(values: Floats, fitted: Fitted, rows: tuple[int, int]) -> Floats:
    """Return rows of the source, times powers of two that are known to cancel."""
    if fitted.powers is None:
        return values
    rows_O, columns_I = fitted.powers
    scaled: Floats = np.ldexp(np.ldexp(values, columns_I), rows_O[slice(*rows), None])
    return scaled
