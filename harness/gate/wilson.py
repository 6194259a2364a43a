"""Wilson's score bounds for one proportion, such as the accuracy of one arm.

Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
Journal of the American Statistical Association 22 (1927) 209-212.
"""

import math
from typing import NamedTuple

from harness.gate.tango import z_of


class Proportion(NamedTuple):
    """One-sided bounds of a proportion."""

    low: float
    high: float


def wilson_bounds(right: int, items: int, *, confidence: float) -> Proportion:
    """Return the one-sided lower and upper bound of the chance behind `right` of `items`."""
    z2 = z_of(confidence) ** 2
    centre = (right + z2 / 2) / (items + z2)
    spread = math.sqrt(z2) / (items + z2) * math.sqrt(right * (items - right) / items + z2 / 4)
    return Proportion(max(centre - spread, 0.0), min(centre + spread, 1.0))
