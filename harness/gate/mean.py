"""A score interval for the mean of values of which only a range is known.

It is to any values what Tango's interval is to lost and won items, and equal to it there. Of each
possible true mean it asks: were it true, how surprising would these values be? The surprise is
measured with the variance that this mean implies: that of the likeliest distribution which has
it, on the values that were seen and on the two ends of the range, whether these were seen or not.
So an event that was never seen still widens the interval, and equal values give no point.

The likeliest distribution gives the value v the chance (its share) / (1 + tilt (v - mean)), as
in empirical likelihood. Its variance is (seen mean - mean) / tilt, whether or not an unseen end
must take a part, so that the squared statistic is items x (seen mean - mean) x tilt. Whether it
exceeds a quantile then takes one sum over the values and no root: the sum falls with the tilt.

With the values 0 and 1 this is Wilson's interval, with -1, 0 and 1 Tango's (both shown by tests).

Source of the distribution: A. B. Owen, "Empirical likelihood ratio confidence intervals for a
single functional", Biometrika 75 (1988) 237-249. The ends of the range and the score form are
ours.
"""

from collections.abc import Mapping
from typing import NamedTuple

from harness.gate.tango import Bounds

_HALVINGS = 55


class Range(NamedTuple):
    """The smallest and the largest value that can occur."""

    lowest: float
    highest: float


def exceeds(counts: Mapping[float, int], limit: float, *, lowest: float, quantile: float) -> bool:
    """Return whether the mean of the values is shown to be above `limit`.

    Args:
        counts: how often each value was seen.
        limit: the mean that is tested.
        lowest: the smallest value that can occur.
        quantile: of the standard normal, at the confidence of the test.
    """
    items = sum(counts.values())
    gap = sum(value * count for value, count in counts.items()) - items * limit
    if gap <= 0:
        return False
    tilt = quantile * quantile / gap
    if 1 + tilt * (lowest - limit) <= 0:
        return False
    pull = (count * (v - limit) / (1 + tilt * (v - limit)) for v, count in counts.items())
    return sum(pull) >= 0


def mean_bounds(counts: Mapping[float, int], within: Range, *, quantile: float) -> Bounds:
    """Return the one-sided bounds of the mean of values that lie `within` a range.

    Args:
        counts: how often each value was seen, at least one.
        within: the range.
        quantile: of the standard normal, at the confidence of each bound.
    """
    mirrored = {-value: count for value, count in counts.items()}
    return Bounds(
        _lower(counts, within.lowest, quantile), -_lower(mirrored, -within.highest, quantile)
    )


def _lower(counts: Mapping[float, int], lowest: float, quantile: float) -> float:
    low, high = lowest, sum(v * count for v, count in counts.items()) / sum(counts.values())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if exceeds(counts, middle, lowest=lowest, quantile=quantile):
            low = middle
        else:
            high = middle
    return (low + high) / 2
