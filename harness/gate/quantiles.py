"""Quantiles of the normal and of Student's distribution, by the standard library alone."""

import math
from functools import lru_cache
from statistics import NormalDist

_HALVINGS = 60


@lru_cache(maxsize=64)
def z_of(confidence: float) -> float:
    """Return the standard normal quantile of a one-sided confidence such as 0.95."""
    return NormalDist().inv_cdf(confidence)


@lru_cache(maxsize=64)
def t_of(confidence: float, degrees: int) -> float:
    """Return Student's quantile of a one-sided confidence of at least one half.

    Without a degree of freedom nothing is known, so it is infinite.
    """
    if degrees < 1:
        return math.inf
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _central(middle, degrees) < 2 * confidence - 1:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central(angle: float, degrees: int) -> float:
    """Return the probability of |T| < sqrt(degrees) tan(angle): a finite sum.

    Source: M. Abramowitz, I. Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    is_odd = degrees % 2
    term = cosine if is_odd else 1.0
    total = term if degrees > 1 else 0.0
    for step in range(3 if is_odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    return (angle + sine * total) * 2 / math.pi if is_odd else sine * total
