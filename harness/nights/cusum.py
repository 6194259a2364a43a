"""A one-sided CUSUM over nights: many small losses that no night proves by itself.

Each night gives x, its loss beside the anchor in standard deviations. The sum S = max(0, S + x - K)
grows while losses are larger than K of them, and an alarm is raised where it exceeds H.

The standard deviation is the larger of two: that of two runs of the same bytes (A/A), and the one
that the night's own flips would have if each had gone either way by chance. The second is there
because items that flip once, as with a new version of an engine, stay flipped: nights of the same
answers are no new evidence.

K is large, against the textbook's half of the shift that is looked for. All nights are compared
with one anchor, whose own noise all of them share: an anchor that was lucky by one deviation makes
every night look worse by 0.7. With K = 2.5 only an anchor that was lucky by 3.5 could raise an
alarm by itself. A night adds at most 1.5 to the sum, so no night raises it alone; one that is bad
enough is proven by itself (`LEVEL`).

`python -m scripts.simulate_drift` shows how often quiet cells alarm, and how late others do.

Source: E. S. Page, "Continuous inspection schemes", Biometrika 41 (1954) 100-115.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

K = 2.5
"""Loss a night, in standard deviations, that is let through."""
H = 2.0
"""What the sum may be."""
MOST = K + 1.5
"""Of one night's loss in standard deviations: two are needed for an alarm."""
LEVEL = 0.001
"""Chance that the tests of one cell in one night together prove a loss where none is."""
AGAIN = 0.05
"""The same of the one test that is made again to confirm an alarm."""
FEWEST_PAIRS = 4
"""Of runs of the same bytes, before a measure is followed: nothing else shows its noise."""
LEAST_NOISE = {
    "tokens_per_s": 0.02,
    "memory_bytes": 0.002,
    "load_s": 0.05,
    "answer_tokens": 0.005,
}
"""Standard deviation of a logarithm of a ratio at least: a few runs may agree by chance."""
_NORMAL = 0.6745
"""Median of the absolute value of a standard normal number."""


class Cusum(NamedTuple):
    """The sum after some nights."""

    value: float = 0.0
    since: str | None = None
    """The first night of those that it is made of."""

    @property
    def is_beyond(self) -> bool:
        """Whether an alarm is raised."""
        return self.value > H

    def after(self, loss: float, night: str) -> "Cusum":
        """Return the sum with one more night.

        Args:
            loss: in standard deviations.
            night: its name.
        """
        value = max(0.0, self.value + min(loss, MOST) - K)
        return Cusum(value, (self.since or night) if value else None)


def loss_of(difference: float, *, noise: float, spread: float) -> float:
    """Return a night's loss in standard deviations, from its difference to the anchor."""
    deviation = max(noise, spread)
    return -difference / deviation if deviation > 0 else 0.0


def noise_of(what: str, changes: Sequence[float]) -> float | None:
    """Return the standard deviation of a measure's log ratio of two runs of the same bytes.

    By the median, so that a run that stood still for a while counts once.

    Args:
        what: the measure.
        changes: logarithm of the ratio of each such run and the one before.

    Returns:
        None where there are too few.
    """
    if len(changes) < FEWEST_PAIRS:
        return None
    seen = median(abs(change) for change in changes) / _NORMAL
    return max(seen, LEAST_NOISE.get(what, 0.0)) if math.isfinite(seen) else None
