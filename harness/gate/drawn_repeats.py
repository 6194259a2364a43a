"""What a task whose items are asked several times can decide, drawn at random.

Two numbers say how such answers vary: how far items differ in what the candidate loses on them
(`item_sd`), which no repeat helps against, and how far one answer differs from the next to the same
item (`repeat_sd`), whose share falls with the number of repeats. The mean difference of n items
with k answers each has the variance (item_sd^2 + repeat_sd^2 / k) / n.

Its interval is a score interval, so that variance alone does not say how often it passes. Items are
drawn: the baseline's accuracy of each from the beta distribution that has the expected accuracy and
leaves its answers the expected spread, the candidate's from log odds that are moved about it. The
draws are seeded, so that a plan is the same each time.

Letters: D draws, I items.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TaskSpec
from harness.gate.outlook import allowed_by
from harness.gate.quantiles import z_of

_DRAWS = 4_000
_MOST_VALUES = 2_000_000
"""Items of all draws together: with more items there are fewer draws."""
_SEED = 20_261_123
_STEPS = 10_000
"""What is allowed is told apart to a hundredth of a point."""
_HALVINGS = 30
_NEWTON = 2
"""Steps that remove what is left of an error of a few per mille."""
_LEAST = 1e-9
_WIDEST = 12.0
"""Log odds beyond which a chance is certain."""

Values = NDArray[np.float64]


class _Answers(NamedTuple):
    """Shares of right answers to each item."""

    baseline_DI: Values
    candidate_DI: Values


def chance_of_repeats(task: TaskSpec, confidence: float, *, difference: float) -> float:
    """Return how often a candidate whose true loss is `-difference` gets GO."""
    answers = _draw(task, difference)
    return float(_passes(task, answers, allowed_by(task), confidence).mean())


def least_of_repeats(task: TaskSpec, confidence: float, *, power: float) -> float:
    """Return the least that must be allowed for a candidate without loss to get GO so often."""
    answers = _draw(task, 0.0)
    low, high = 0, _STEPS
    while high - low > 1:
        middle = (low + high) // 2
        if _passes(task, answers, middle / _STEPS, confidence).mean() >= power:
            high = middle
        else:
            low = middle
    return high / _STEPS


@lru_cache(maxsize=2)
def _draw(task: TaskSpec, difference: float) -> _Answers:
    """Draw the answers of both arms to each item, many times."""
    size = max(min(_DRAWS, _MOST_VALUES // task.items), 1), task.items
    draws = np.random.default_rng([_SEED, task.items, task.repeats])
    chance_DI = draws.beta(*_shape(task), size=size)
    moved_DI = _move(chance_DI, draws.standard_normal(size), task.item_sd or 0.0, difference)
    return _Answers(
        draws.binomial(task.repeats, chance_DI) / task.repeats,
        draws.binomial(task.repeats, moved_DI) / task.repeats,
    )


def _shape(task: TaskSpec) -> tuple[float, float]:
    """Return the two numbers of the beta distribution of the items' accuracies.

    Its mean is the expected accuracy, and the mean of p (1 - p) half of repeat_sd^2, since both
    arms' answers vary.
    """
    mean = min(max(task.baseline_accuracy, _LEAST), 1 - _LEAST)
    share = min((task.repeat_sd or 0.0) ** 2 / 2 / (mean * (1 - mean)), 1 - _LEAST)
    total = max(share, _LEAST) / (1 - share)
    return max(mean * total, _LEAST), max((1 - mean) * total, _LEAST)


def _move(chance_DI: Values, normal_DI: Values, item_sd: float, difference: float) -> Values:
    """Return chances whose differences have this standard deviation and this mean.

    The log odds are moved by normal numbers, whose scale and mean are found by bisection on a part
    of the items; the mean, which decides more, is then set right on all of them.
    """
    odds_DI = _log_odds(chance_DI)

    def shifted(scale: float) -> Values:
        low, high = -_WIDEST, _WIDEST
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            mean = float((_chance(sample_odds + scale * sample_normal + middle) - sample).mean())
            low, high = (middle, high) if mean < difference else (low, middle)
        return np.asarray([scale, (low + high) / 2])

    few = slice(None, max(1, 100_000 // chance_DI.shape[1]))
    sample, sample_odds, sample_normal = chance_DI[few], odds_DI[few], normal_DI[few]
    least, most = 0.0, _WIDEST
    for _ in range(_HALVINGS if item_sd else 0):
        scale, mean = shifted((least + most) / 2)
        spread = float((_chance(sample_odds + scale * sample_normal + mean) - sample).std())
        least, most = (scale, most) if spread < item_sd else (least, scale)
    scale, mean = shifted((least + most) / 2 if item_sd else 0.0)
    moved_DI = _chance(odds_DI + scale * normal_DI + mean)
    for _ in range(_NEWTON):
        short = difference - float((moved_DI - chance_DI).mean())
        slope = max(float((moved_DI * (1 - moved_DI)).mean()), _LEAST)
        mean += short / slope
        moved_DI = _chance(odds_DI + scale * normal_DI + mean)
    return moved_DI


def _log_odds(chance_DI: Values) -> Values:
    inside = np.clip(chance_DI, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(inside / (1 - inside)))


def _chance(odds_DI: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-odds_DI)))


def _passes(
    task: TaskSpec, answers: _Answers, allowed: float, confidence: float
) -> NDArray[np.bool_]:
    """Return for each draw whether it is GO: `mean.exceeds`, for all of them at once."""
    kept = 1.0 if task.recovery is None else 1 - allowed
    limit = -allowed if task.recovery is None else 0.0
    value_DI = answers.candidate_DI - kept * answers.baseline_DI - limit
    gap_D = value_DI.sum(axis=1)
    tilt_D = z_of(confidence) ** 2 / np.maximum(gap_D, _LEAST)
    is_possible_D = (gap_D > 0) & (1 - tilt_D * (kept + limit) > 0)
    tilt_D = np.where(is_possible_D, tilt_D, 0.0)
    pull_D = (value_DI / (1 + tilt_D[:, None] * value_DI)).sum(axis=1)
    return np.asarray(is_possible_D & (pull_D >= 0))
