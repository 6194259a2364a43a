"""Refuse a gate that nobody can pass, before anything is spent on it."""

from collections.abc import Callable

from harness.artifacts import Suite, TaskSpec, Tier
from harness.errors import ReasonCode, SuiteError
from harness.gate.mean import Range, exceeds, mean_bounds
from harness.gate.outlook import (
    allowed_by,
    is_above_guessing,
    limit_of,
    lowest,
    pooled_quantile,
    quantile,
    value_of_each,
    worth,
)
from harness.gate.pooled import names_pooled
from harness.gate.ratio import MIN_DOCUMENTS
from harness.gate.tango import score

_STEPS = 10_000
_MOST_ITEMS = 10_000_000


def check_margins(suite: Suite) -> None:
    """Refuse what not even a candidate without a single flip could pass.

    Critical tasks of any form are looked at, and the pooled margin.

    Raises:
        SuiteError: a margin or recovery cannot be met, with what and how many items would do; or
            a candidate that guesses would meet it.
    """
    for task in suite.tasks:
        if task.tier is not Tier.CRITICAL:
            continue
        if task.relative_margin is not None:
            _refuse_few_documents(task)
            continue
        if not _reaches(task, task.items, allowed_by(task), suite.confidence):
            raise SuiteError(_message(task, suite.confidence), reason=ReasonCode.MARGIN_UNREACHABLE)
        _refuse_guessing(task, suite.confidence)
    _refuse_pooled(suite)


def _refuse_pooled(suite: Suite) -> None:
    pooled = [task for task in suite.tasks if task.name in names_pooled(suite)]
    items, margin = sum(task.items for task in pooled), suite.pooled_margin
    if margin is not None and not items:
        message = (
            "a pooled_margin needs tasks whose items are right or wrong, and the suite has "
            "perplexities alone. Leave it out."
        )
        raise SuiteError(message, reason=ReasonCode.MARGIN_UNREACHABLE)
    needed = pooled_quantile(pooled, suite.confidence)
    if margin is not None and score(0, 0, items, difference=-margin) <= needed:
        message = (
            f"a pooled_margin of {margin:g} cannot be met with the suite's {items} items, not even "
            "by a candidate that answers every item like its baseline. Use a larger one, or more "
            "items."
        )
        raise SuiteError(message, reason=ReasonCode.MARGIN_UNREACHABLE)


def _refuse_few_documents(task: TaskSpec) -> None:
    units, what = (task.clusters, "clusters") if task.cluster else (task.items, "documents")
    if units >= MIN_DOCUMENTS:
        return
    message = (
        f"task '{task.name}': {units} {what} show nothing of a perplexity, whatever they hold. "
        f"Use at least {MIN_DOCUMENTS}."
    )
    raise SuiteError(message, reason=ReasonCode.MARGIN_UNREACHABLE)


def _reaches(task: TaskSpec, items: int, allowed: float, confidence: float) -> bool:
    """Return whether a candidate passes that answers every item like its baseline."""
    if allowed <= 0:
        return False
    right = round(items * task.baseline_accuracy)
    values = worth({"right": right, "wrong": items - right}, value_of_each(task, allowed))
    z = quantile(task, confidence)
    return exceeds(values, limit_of(task, allowed), lowest=lowest(task, allowed), quantile=z)


def _refuse_guessing(task: TaskSpec, confidence: float) -> None:
    """Refuse what the judge must: a margin so wide that a candidate which guesses is within it."""
    right = round(task.items * task.baseline_accuracy)
    counts = {1.0: right, 0.0: task.items - right}
    low = mean_bounds(counts, Range(0.0, 1.0), quantile=quantile(task, confidence)).low
    if is_above_guessing(task, low):
        return
    message = (
        f"task '{task.name}': a baseline that answers {right} of {task.items} items is not shown "
        f"to be so far above chance ({task.chance:.1%}) that a candidate which guesses would fail. "
        "Use a smaller margin or a larger recovery, more items, or another task."
    )
    raise SuiteError(message, reason=ReasonCode.BASELINE_TOO_WEAK)


def _message(task: TaskSpec, confidence: float) -> str:
    allowed = allowed_by(task)
    least = _first(1, _STEPS, lambda step: _reaches(task, task.items, step / _STEPS, confidence))
    if task.recovery is None:
        asked, fix = f"a margin of {allowed:g}", f"a margin of at least {least / _STEPS:g}"
    else:
        asked = f"a recovery of {task.recovery:g}"
        fix = f"a recovery of at most {(_STEPS - least) / _STEPS:g}"
    if allowed > 0:
        enough = _first(1, _MOST_ITEMS, lambda items: _reaches(task, items, allowed, confidence))
        fix += f", or at least {enough} items"
    grouped = f" in {task.clusters} clusters" if task.cluster else ""
    return (
        f"task '{task.name}': {asked} cannot be met with {task.items} items{grouped}, not even by "
        f"a candidate that answers every item like its baseline. Use {fix}."
    )


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the first number from which on `holds` does; `high` if none."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
