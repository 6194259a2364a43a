"""What a suite can decide, before anything is run.

A candidate without loss still answers some items differently from its baseline, as often one way
as the other. Whether it gets GO is then a matter of luck, number of items and margin. The chance
is summed exactly over every number of flips, because normal approximations are furthest off
where suites live, at a few dozen flips: an item flips with probability `flip_rate`, and a flip is
a loss with probability one half, or more if the candidate really lost something.

Left out: correlation between tasks (different items, so none is assumed) and everything but the
interval that can stop a GO, such as answers cut off.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

from harness.artifacts import Suite, TaskSpec, Tier
from harness.errors import ReasonCode, SuiteError
from harness.gate.tango import score, z_of

_NEGLIGIBLE = 1e-12
"""Probabilities below this are left out of a sum."""


class TaskPower(NamedTuple):
    """What one task can decide; for a plan that is shown to a person."""

    task: TaskSpec
    smallest_margin: float
    """Smallest margin at which a candidate without loss gets GO four times in five."""
    probability_of_go: float
    """For a candidate without loss, at the suite's margin."""


def probability_of_go(
    items: int, flip_rate: float, margin: float, confidence: float, *, difference: float = 0.0
) -> float:
    """Return how often a candidate whose true loss is `-difference` is shown to be within `margin`.

    Raises:
        ValueError: the difference is larger than the flip rate, which is impossible.
    """
    if abs(difference) > flip_rate:
        message = f"a difference of {difference:g} needs a flip rate of at least as much"
        raise ValueError(message)
    lost_share = (flip_rate - difference) / (2 * flip_rate) if flip_rate else 0.5
    z = z_of(confidence)
    total = 0.0
    for flips, chance in _binomial(items, flip_rate):
        most = _most_lost(flips, items, margin=margin, z=z)
        if most is not None:
            total += chance * _at_most(most, flips, lost_share)
    return min(total, 1.0)


def smallest_margin(
    items: int, flip_rate: float, confidence: float, *, power: float = 0.8
) -> float:
    """Return the smallest margin, to a hundredth of a point, that GO is reached at with `power`."""
    low, high = 0, 10_000
    while high - low > 1:
        middle = (low + high) // 2
        if probability_of_go(items, flip_rate, middle / 10_000, confidence) >= power:
            high = middle
        else:
            low = middle
    return high / 10_000


def joint_probability_of_go(suite: Suite) -> float:
    """Return how often a candidate without loss gets GO on all critical tasks together."""
    return math.prod(power.probability_of_go for power in plan_power(suite, Tier.CRITICAL))


def plan_power(suite: Suite, *tiers: Tier) -> tuple[TaskPower, ...]:
    """Return what each task of `tiers` can decide; without a tier, each task of the suite."""
    return tuple(
        TaskPower(
            task,
            smallest_margin(task.items, task.flip_rate, suite.confidence),
            probability_of_go(task.items, task.flip_rate, task.margin, suite.confidence),
        )
        for task in suite.tasks
        if not tiers or task.tier in tiers
    )


def check_margins(suite: Suite) -> None:
    """Refuse a critical task that not even a candidate without a single flip could pass.

    Raises:
        SuiteError: a margin cannot be met, with the margin and the items that would do.
    """
    z2 = z_of(suite.confidence) ** 2
    for task in suite.tasks:
        floor = z2 / (task.items + z2)
        if task.tier is not Tier.CRITICAL or task.margin > floor:
            continue
        least = f"{math.ceil(floor * 10_000 + 1e-9) / 10_000:g}"
        fix = f"Use a margin of at least {least}"
        if task.margin > 0:
            fix += f", or at least {_items_for(task.margin, z2)} items"
        message = (
            f"task '{task.name}': a margin of {task.margin:g} cannot be met with {task.items} "
            f"items, not even by a candidate that answers every item like its baseline. {fix}."
        )
        raise SuiteError(message, reason=ReasonCode.MARGIN_UNREACHABLE)


def _items_for(margin: float, z2: float) -> int:
    """Return the fewest items with which zero flips pass `margin`."""
    return math.floor(z2 * (1 - margin) / margin) + 1


def _most_lost(flips: int, items: int, *, margin: float, z: float) -> int | None:
    """Return how many of `flips` may be losses before GO is out of reach; None if none may."""

    def passes(lost: int) -> bool:
        return score(lost, flips - lost, items, difference=-margin) > z

    if not passes(0):
        return None
    low, high = 0, flips + 1
    while high - low > 1:
        middle = (low + high) // 2
        if passes(middle):
            low = middle
        else:
            high = middle
    return low


def _at_most(most: int, trials: int, chance: float) -> float:
    """Return the probability of at most `most` successes in `trials`."""
    if most >= trials:
        return 1.0
    return math.fsum(p for count, p in _binomial(trials, chance) if count <= most)


def _binomial(trials: int, chance: float) -> Iterator[tuple[int, float]]:
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
