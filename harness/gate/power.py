"""What a suite can decide, before anything is run.

A candidate without loss still answers some items differently from its baseline, as often one way
as the other. Whether it gets GO is then a matter of luck, number of items and margin. The chance
is summed exactly over everything that can happen, because normal approximations are furthest off
where suites live, at a few dozen flips; only grouped items
(`drawn`) and items that are asked several times (`drawn_repeats`) are drawn.

Left out: correlation between tasks (different items, so none is assumed), the sign-flip interval
(the score interval beside it is nearly always the wider one), and everything but the statistics
that can stop a GO, such as answers cut off.
"""

import math
from bisect import bisect_left
from typing import NamedTuple

from harness.artifacts import Suite, TaskSpec, Tier
from harness.gate.drawn import NEVER, least_allowed
from harness.gate.drawn_repeats import chance_of_repeats, least_of_repeats
from harness.gate.exact import Chances, chance_of_passing, chances_of
from harness.gate.outlook import allowed_by, passing, pooled_quantile
from harness.gate.pooled import names_pooled
from harness.gate.quantiles import z_of
from harness.gate.rises import chance_within, least_rise
from harness.gate.tango import score

_POWER = 0.8
_STEPS = 10_000


class TaskPower(NamedTuple):
    """What one task can decide; for a plan that is shown to a person."""

    task: TaskSpec
    margin: float
    """The suite's; where a recovery is asked for, what it leaves of the expected accuracy; of a
    perplexity, the rise that is allowed."""
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
    chances = chances_of(flip_rate, difference=difference, accuracy=1.0)
    return _chance_within(items, chances, margin, z_of(confidence))


def _chance_within(items: int, chances: Chances, margin: float, quantile: float) -> float:
    def passes(lost: int, won: int, _: int) -> bool:
        return score(lost, won, items, difference=-margin) > quantile

    return chance_of_passing(items, chances, passes, counts_right=False)


def chance_of_go(task: TaskSpec, confidence: float, *, difference: float = 0.0) -> float:
    """Return how often a candidate whose true loss is `-difference` gets GO on a task of any form.

    Args:
        task: with the flip rate, spread, accuracy and design effect that are expected.
        confidence: of each bound.
        difference: candidate minus baseline, on values that are 0 or 1; of a perplexity, minus
            the logarithm of the true ratio.

    Raises:
        ValueError: the difference is larger than the flip rate, which is impossible.
    """
    if task.relative_margin is not None:
        return chance_within(task, allowed_by(task), confidence, difference=difference)
    accuracy = task.baseline_accuracy
    if task.repeats > 1:
        return chance_of_repeats(task, confidence, difference=difference)
    chances = chances_of(task.flip_rate, difference=difference, accuracy=accuracy)
    return _chance(task, chances, allowed_by(task), confidence)


def joint_probability_of_go(suite: Suite) -> float:
    """Return how often a candidate without loss gets GO: on all critical tasks, and pooled."""
    chances = [power.probability_of_go for power in plan_power(suite, Tier.CRITICAL)]
    return math.prod(chances) * _chance_of_pool(suite)


def plan_power(suite: Suite, *tiers: Tier) -> tuple[TaskPower, ...]:
    """Return what each task of `tiers` can decide; without a tier, each task of the suite."""
    return tuple(
        _plan(task, suite.confidence) for task in suite.tasks if not tiers or task.tier in tiers
    )


def _plan(task: TaskSpec, confidence: float) -> TaskPower:
    asked = _whole(task) * allowed_by(task)
    return TaskPower(
        task,
        asked if task.relative_margin is None else task.relative_margin,
        smallest_margin(task, confidence),
        chance_of_go(task, confidence),
    )


def smallest_margin(task: TaskSpec, confidence: float, *, power: float = _POWER) -> float:
    """Return the smallest margin at which a candidate without loss gets GO four times in five.

    To a hundredth of a point; for a recovery, what it leaves of the accuracy that is expected.
    `power` is another share of times.
    """
    if task.relative_margin is not None:
        return least_rise(task, confidence, power=power)
    if task.repeats > 1:
        return _whole(task) * least_of_repeats(task, confidence, power=power)
    chances = chances_of(task.flip_rate, difference=0.0, accuracy=task.baseline_accuracy)
    if task.cluster:
        ascending = least_allowed(task, chances, confidence)
        return _whole(task) * ascending[math.ceil(power * len(ascending)) - 1]

    def is_enough(step: int) -> bool:
        return _chance(task, chances, step / _STEPS, confidence) >= power

    smallest = 1 + bisect_left(range(1, _STEPS), x=True, key=is_enough)
    return _whole(task) * smallest / _STEPS


def _whole(task: TaskSpec) -> float:
    """Return what the share that may be lost is a share of."""
    return 1.0 if task.recovery is None else task.baseline_accuracy


def _chance(task: TaskSpec, chances: Chances, allowed: float, confidence: float) -> float:
    if task.cluster:
        ascending = least_allowed(task, chances, confidence)
        passed = bisect_left(ascending, min(allowed + 1e-9, NEVER))
        return passed / len(ascending)
    passes = passing(task, task.items, allowed, confidence)
    by_right = task.recovery is not None and task.value_range is None
    return chance_of_passing(task.items, chances, passes, counts_right=by_right)


def _variance(task: TaskSpec) -> float:
    """Return that of an item's difference: where it is asked once, the share that flips."""
    if task.repeats == 1:
        return task.flip_rate
    return (task.item_sd or 0.0) ** 2 + (task.repeat_sd or 0.0) ** 2 / task.repeats


def _chance_of_pool(suite: Suite) -> float:
    """Return how often all items together pass; 1 without a pooled margin.

    Tasks differ in their flip rates, so that the flips vary less than is assumed here.
    """
    if suite.pooled_margin is None:
        return 1.0
    pooled = [task for task in suite.tasks if task.name in names_pooled(suite)]
    items = sum(task.items for task in pooled)
    if not items:
        return 0.0
    flip_rate = sum(task.items * _variance(task) for task in pooled) / items
    chances = chances_of(flip_rate, difference=0.0, accuracy=1.0)
    quantile = pooled_quantile(pooled, suite.confidence)
    return _chance_within(items, chances, suite.pooled_margin, quantile)
