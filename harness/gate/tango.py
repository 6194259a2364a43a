"""Tango's score interval for the difference of two paired proportions.

Both arms answer the same n items, so an item is one of four kinds: right in both, wrong in both,
`lost` (only the baseline was right) or `won` (only the candidate was). The difference of the
accuracies, candidate minus baseline, is (won - lost) / n. The score interval asks of each
possible true difference d: were d true, how surprising would these counts be? It measures the
surprise with the variance that d itself implies, not with the observed one, and so it keeps an
honest width where a Wald interval shrinks to a point: with no flip in n items the bounds are
-+ z^2 / (n + z^2), Wilson's bound for an event that was never seen.

The variance that d implies needs the chance of a lost item given d, by maximum likelihood; that
is the root of a quadratic. The bounds are then found by bisection, because the statistic falls
strictly with d.

`mean` has the same interval for metrics that are not right or wrong, and for items that come in
clusters; this is its closed form, which planning can afford to sum over.

Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions
for the paired-sample design", Statistics in Medicine 17 (1998) 891-908, equations (24) to (26).
"""

import math
from typing import NamedTuple

from harness.gate.quantiles import z_of

_HALVINGS = 60
"""The interval [-1, 1] cut this often is narrower than the spacing of doubles near 1."""


class Bounds(NamedTuple):
    """One-sided bounds of a difference; each holds with the confidence that was asked for."""

    low: float
    high: float


def score(lost: int, won: int, items: int, *, difference: float) -> float:
    """Return the score statistic against a true `difference`; large means it is larger than that.

    It is standard normal where `difference` is the truth, and infinite where the counts are
    impossible under `difference`.
    """
    surplus = won - lost - items * difference
    share = _lost_share(lost, won, items, difference)
    variance = items * (2 * share + difference * (1 - difference))
    if variance <= 0:
        return math.copysign(math.inf, surplus) if surplus else 0.0
    return surplus / math.sqrt(variance)


def tango_bounds(lost: int, won: int, items: int, *, confidence: float) -> Bounds:
    """Return the one-sided lower and upper bound of the difference, candidate minus baseline.

    Raises:
        ValueError: the counts are negative, or more than `items`, or there is no item.
    """
    if min(lost, won) < 0 or items < 1 or lost + won > items:
        message = f"{lost} lost and {won} won of {items} items are no counts"
        raise ValueError(message)
    z = z_of(confidence)
    # The interval of the mirrored counts is the mirrored interval.
    return Bounds(_lower(lost, won, items, z), -_lower(won, lost, items, z))


def _lower(lost: int, won: int, items: int, z: float) -> float:
    """Return the smallest difference that a one-sided test at `z` does not reject."""
    low, high = -1.0, (won - lost) / items
    if lost == items:
        return -1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if score(lost, won, items, difference=middle) >= z:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _lost_share(lost: int, won: int, items: int, difference: float) -> float:
    """Return the maximum-likelihood chance of a lost item, given the true difference.

    The larger root of A x^2 + B x + C, written so that no two near-equal numbers are subtracted.
    """
    a = 2 * items
    b = (2 * items - won + lost) * difference - won - lost
    c = -lost * difference * (1 - difference)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    if b <= 0:
        return (root - b) / (2 * a)
    return -2 * c / (b + root) if c else 0.0
