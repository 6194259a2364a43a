"""The sign-flip permutation test of paired differences, and the interval that inverts it.

If the arms were alike, each difference would be as likely as its negative. So the signs of all
differences are flipped in every possible way, and the share of ways whose sum is at least as bad
as the one that was seen is the p value. Nothing is assumed of the values' distribution but that.
Where items are grouped, a whole group keeps one sign.

The interval needs no search. A mean `m` is rejected if few subsets of the items have a mean of at
most `m`, so its lower bound is a quantile of the subsets' means: Hartigan's typical values.

Exact where the subsets can be counted; else with as many random ones, seeded, and with the
identity among them, so that the test stays valid. Beside zero flips the interval has no width at
all, which is why it is never used without the interval of `mean`.

Source: J. A. Hartigan, "Using subsample values as typical values", Journal of the American
Statistical Association 64 (1969) 1303-1317.
"""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import NamedTuple

from harness.gate.tango import Bounds

_MAX_EXACT = 12
"""Groups up to which all subsets are looked at for the interval."""
_MAX_SUMS = 1 << 12
"""Different sums up to which the test counts exactly."""
_DRAWS = 9_999
_SEED = 20_261_123
_DIGITS = 9
"""Sums that agree so far are one: values such as 0.1 have no exact binary form."""
_FLAGS = bytes.maketrans(b"01", b"\0\1")


class Cluster(NamedTuple):
    """Differences that share one sign: an item, or the items of a cluster."""

    total: float
    items: int


def sign_flip_p(groups: Sequence[Cluster]) -> float:
    """Return how often a candidate that is no worse would do as badly."""
    totals = [group.total for group in groups if group.total]
    exact = _sums(totals)
    if exact is not None:
        return sum(n for total, n in exact.items() if total >= 0) / (1 << len(totals))
    draws = random.Random(_SEED)  # noqa: S311  a permutation test needs no secret
    as_bad = sum(round(sum(_draw(totals, draws)), _DIGITS) >= 0 for _ in range(_DRAWS))
    return (1 + as_bad) / (1 + _DRAWS)


def sign_flip_bounds(groups: Sequence[Cluster], *, confidence: float) -> Bounds:
    """Return the one-sided bounds of the mean difference; differences lie between -1 and 1."""
    means = sorted(_subset_means(groups))
    rank = math.floor(round((1 - confidence) * (len(means) + 1), _DIGITS))
    if not rank:
        return Bounds(-1.0, 1.0)
    return Bounds(means[rank - 1], means[-rank])


def _sums(totals: Sequence[float]) -> Counter[float] | None:
    """Return how many subsets have which sum; None if there are too many sums."""
    found: Counter[float] = Counter({0.0: 1})
    for total in totals:
        for other, count in list(found.items()):
            found[round(other + total, _DIGITS)] += count
        if len(found) > _MAX_SUMS:
            return None
    return found


def _subset_means(groups: Sequence[Cluster]) -> list[float]:
    totals, items = [g.total for g in groups], [g.items for g in groups]
    if len(groups) <= _MAX_EXACT:
        chosen: Sequence[int] = range(1, 1 << len(groups))
    else:
        draws = random.Random(_SEED)  # noqa: S311  a permutation test needs no secret
        chosen = [draws.getrandbits(len(groups)) or 1 for _ in range(_DRAWS)]
    flags = (f"{bits:0{len(groups)}b}".encode().translate(_FLAGS) for bits in chosen)
    return [sum(compress(totals, flag)) / sum(compress(items, flag)) for flag in flags]


def _draw(totals: Sequence[float], draws: random.Random) -> Iterator[float]:
    flag = f"{draws.getrandbits(len(totals)):0{len(totals)}b}".encode().translate(_FLAGS)
    return compress(totals, flag)
