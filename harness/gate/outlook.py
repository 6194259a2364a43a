"""What numbers of lost and won items would decide, before there are any: one function a form.

`allowed` is what a task lets the candidate lose: its margin, or 1 minus its recovery.
"""

import math
from collections.abc import Mapping, Sequence

from harness.artifacts import Claim, TaskSpec
from harness.gate.exact import Passes
from harness.gate.mcnemar import p_worse
from harness.gate.mean import exceeds
from harness.gate.pairs import is_plain
from harness.gate.quantiles import t_of, z_of
from harness.gate.tango import score


def allowed_by(task: TaskSpec) -> float:
    """Return what the task's own margin or recovery allows; of a perplexity, in nats."""
    if task.relative_margin is not None:
        return math.log1p(task.relative_margin)
    return task.margin or 0.0 if task.recovery is None else 1 - task.recovery


def is_above_guessing(task: TaskSpec, baseline_low: float) -> bool:
    """Return whether a candidate that guesses would have lost more than the task allows.

    Args:
        task: what it allows, and what guessing gets.
        baseline_low: the lower bound of the baseline's accuracy; of a perplexity, of its mean
            log-likelihood.
    """
    if task.relative_margin is not None:
        return not task.chance or baseline_low - allowed_by(task) > math.log(task.chance)
    return baseline_low * task.kept - (task.margin or 0.0) > task.chance


def passing(task: TaskSpec, items: int, allowed: float, confidence: float) -> Passes:
    """Return the decision that the gate would make from counts."""
    z, level = quantile(task, confidence), 1 - confidence
    needs, bottom = limit_of(task, allowed), lowest(task, allowed)
    values = value_of_each(task, allowed)

    def passes(lost: int, won: int, right: int) -> bool:
        if task.claim is Claim.LOSSLESS and p_worse(lost, won) <= level:
            return False
        if is_plain(task):
            return score(lost, won, items, difference=-allowed) > z
        kinds = {"lost": lost, "won": won, "right": right, "wrong": items - lost - won - right}
        return exceeds(worth(kinds, values), needs, lowest=bottom, quantile=z)

    return passes


def worth(kinds: Mapping[str, int], values: Mapping[str, float]) -> dict[float, int]:
    """Return how often each value occurs, for the numbers of the kinds of items."""
    counts: dict[float, int] = {}
    for kind, number in kinds.items():
        value = values[kind]
        counts[value] = counts.get(value, 0) + number
    return counts


def quantile(task: TaskSpec, confidence: float) -> float:
    """Return the quantile of the task's interval, with the design effect that is expected."""
    if not task.cluster:
        return z_of(confidence)
    return t_of(confidence, task.clusters - 1) * math.sqrt(task.design_effect)


def pooled_quantile(pooled: Sequence[TaskSpec], confidence: float) -> float:
    """Return the quantile of the pool's interval where nothing differs; groups widen it."""
    if not any(task.cluster for task in pooled):
        return z_of(confidence)
    units = sum(task.clusters if task.cluster else task.items for task in pooled)
    return t_of(confidence, units - 1)


def limit_of(task: TaskSpec, allowed: float) -> float:
    """Return what the mean of the task's values must exceed."""
    return -allowed if task.recovery is None else 0.0


def lowest(task: TaskSpec, allowed: float) -> float:
    """Return the smallest value that an item can have."""
    return -1.0 if task.recovery is None else allowed - 1


def value_of_each(task: TaskSpec, allowed: float) -> Mapping[str, float]:
    """Return the value of each kind of item.

    A metric that is not 0 or 1 is planned with one size of difference, and for a recovery with
    one accuracy of all items.
    """
    if task.recovery is None:
        step = task.spread if task.value_range else 1.0
        return {"lost": -step, "won": step, "right": 0.0, "wrong": 0.0}
    if task.value_range:
        same = allowed * task.baseline_accuracy
        steps = {"lost": same - task.spread, "won": same + task.spread}
        return {**steps, "right": same, "wrong": same}
    return {"lost": allowed - 1, "won": 1.0, "right": allowed, "wrong": 0.0}
