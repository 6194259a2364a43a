"""Exact sums over everything that a candidate's answers can be.

An item flips with a known chance, and a flip is a loss with probability one half, or more if the
candidate really lost something. Passing is easier the fewer of the flips are losses, so for each
number of flips there is a largest number of losses that passes, found by bisection.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple

Passes = Callable[[int, int, int], bool]
"""Whether a number of lost and of won items, and of items that both arms answer, passes."""
_NEGLIGIBLE = 1e-12
"""Probabilities below this are left out of a sum."""


class Chances(NamedTuple):
    """Of one item."""

    flips: float
    lost: float
    """That a flip is a loss."""
    right: float
    """That both arms answer rightly where they answer alike."""


def chances_of(flip_rate: float, *, difference: float, accuracy: float) -> Chances:
    """Return the chances of an item, for a true difference and the baseline's accuracy.

    Raises:
        ValueError: the difference is larger than the flip rate, which is impossible.
    """
    if abs(difference) > flip_rate:
        message = f"a difference of {difference:g} needs a flip rate of at least as much"
        raise ValueError(message)
    lost = (flip_rate - difference) / (2 * flip_rate) if flip_rate else 0.5
    alike = 1 - flip_rate
    right = (accuracy - flip_rate * lost) / alike if alike > 0 else 0.0
    return Chances(flip_rate, lost, min(max(right, 0.0), 1.0))


def chance_of_passing(items: int, chances: Chances, passes: Passes, *, counts_right: bool) -> float:
    """Return how often a candidate with these chances passes.

    Args:
        items: of the task.
        chances: of one item.
        passes: the decision.
        counts_right: whether the decision depends on the items that both arms answer.
    """
    total = 0.0
    for flips, chance in binomial(items, chances.flips):
        if counts_right:
            total += chance * _over_right(flips, items - flips, chances, passes)
        else:
            most = _most_lost(flips, 0, passes)
            total += chance * _at_most(most, flips, chances.lost)
    return min(total, 1.0)


def _over_right(flips: int, alike: int, chances: Chances, passes: Passes) -> float:
    """Sum over the items that both answer: more of them pass with more losses, in a few steps."""
    rights = sorted(binomial(alike, chances.right))

    def total(first: int, last: int) -> float:
        most = _most_lost(flips, rights[first][0], passes)
        if first == last or most == _most_lost(flips, rights[last][0], passes):
            chance = math.fsum(p for _, p in rights[first : last + 1])
            return chance * _at_most(most, flips, chances.lost)
        middle = (first + last) // 2
        return total(first, middle) + total(middle + 1, last)

    return total(0, len(rights) - 1)


def _most_lost(flips: int, right: int, passes: Passes) -> int | None:
    """Return how many of `flips` may be losses before GO is out of reach; None if none may."""
    if not passes(0, flips, right):
        return None
    more = range(1, flips + 1)
    return bisect_left(more, x=True, key=lambda lost: not passes(lost, flips - lost, right))


def _at_most(most: int | None, trials: int, chance: float) -> float:
    """Return the probability of at most `most` successes in `trials`."""
    if most is None:
        return 0.0
    if most >= trials:
        return 1.0
    return math.fsum(p for count, p in binomial(trials, chance) if count <= most)


def binomial(trials: int, chance: float) -> Iterator[tuple[int, float]]:
    """Yield every count of successes that is not negligible, with its probability."""
    if chance in {0.0, 1.0}:
        yield round(trials * chance), 1.0
        return
    mode = min(int((trials + 1) * chance), trials)
    odds = chance / (1 - chance)
    peak = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(mode + 1)
        - math.lgamma(trials - mode + 1)
        + mode * math.log(chance)
        + (trials - mode) * math.log1p(-chance)
    )
    count, probability = mode, peak
    while count <= trials and probability > _NEGLIGIBLE:
        yield count, probability
        probability *= (trials - count) / (count + 1) * odds
        count += 1
    count, probability = mode - 1, peak * mode / ((trials - mode + 1) * odds)
    while count >= 0 and probability > _NEGLIGIBLE:
        yield count, probability
        probability *= count / ((trials - count + 1) * odds)
        count -= 1
