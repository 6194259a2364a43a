"""What forbids GO for a task however good its difference looks.

Each check is one function that looks at the whole task and returns the reason and a sentence, or
None. They are asked in order and the first one that speaks is reported.
"""

from collections.abc import Callable
from typing import NamedTuple

from harness.artifacts import Sample, Suite
from harness.errors import ReasonCode
from harness.gate.forms import baseline_low
from harness.gate.mcnemar import p_worse
from harness.gate.outlook import is_above_guessing
from harness.gate.pairs import Side, TaskPairs

_ENDINGS: tuple[tuple[ReasonCode, str, Callable[[Sample], bool]], ...] = (
    (ReasonCode.TRUNCATION_RISE, "cut off", lambda sample: sample.finish == "length"),
    (ReasonCode.EMPTY_RISE, "empty", lambda sample: not sample.answer.strip()),
)


class QualityIssue(NamedTuple):
    """Why a task cannot be GO."""

    reason: ReasonCode
    message: str


def first_issue(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Return the first reason for which this task may not be GO."""
    return next((issue for check in _CHECKS if (issue := check(task, suite)) is not None), None)


def _missing(task: TaskPairs, _: Suite) -> QualityIssue | None:
    """Ask whether each arm has a score and every item that the suite asks for."""
    for side in task.sides:
        problem = _what_is_missing(side, task.spec.items)
        if problem:
            return QualityIssue(ReasonCode.SCORE_MISSING, f"the {side.arm} {problem}")
    return None


def _what_is_missing(side: Side, items: int) -> str | None:
    if side.score is None:
        return "has no score"
    if side.score.num_items < items:
        return f"answered {side.score.num_items} of {items} items"
    if len(side.samples) != side.score.num_items:
        return f"has {len(side.samples)} samples behind a score of {side.score.num_items} items"
    if side.score.num_prompts_cut:
        return f"lost tokens of {side.score.num_prompts_cut} prompts that did not fit"
    mean = sum(sample.value for sample in side.samples) / max(len(side.samples), 1)
    failed = side.score.num_errors or any(s.finish == "error" for s in side.samples)
    if not failed and abs(mean - side.score.value) > 1e-6:  # noqa: PLR2004  float dust
        return f"has the score {side.score.value:.4f}, but its samples' mean is {mean:.4f}"
    return None


def _failed(task: TaskPairs, _: Suite) -> QualityIssue | None:
    """Ask whether every request was answered."""
    for side in task.sides:
        in_samples = sum(sample.finish == "error" for sample in side.samples)
        failed = max(side.score.num_errors if side.score else 0, in_samples)
        if failed:
            return QualityIssue(
                ReasonCode.REQUEST_ERRORS,
                f"{failed} of the {side.arm}'s requests failed, so their answers are unknown",
            )
    return None


def _truncated(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether answers ended by themselves."""
    for side in task.sides:
        if side.score and side.score.num_truncated > suite.max_truncated * side.score.num_items:
            return QualityIssue(
                ReasonCode.TRUNCATED_ANSWERS,
                f"{side.score.num_truncated} of the {side.arm}'s {side.score.num_items} answers "
                f"hit the output budget, where the suite tolerates {suite.max_truncated:.1%}",
            )
    return None


def _weak_baseline(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether a candidate that guesses would have to lose more than the margin.

    If it would not, the comparison cannot tell a good candidate from token salad.
    """
    items = len(task.pairs)
    low = baseline_low(task, confidence=suite.confidence)
    if is_above_guessing(task.spec, low):
        return None
    right = sum(pair.baseline.value for pair in task.pairs)
    return QualityIssue(
        ReasonCode.BASELINE_TOO_WEAK,
        f"the baseline answers {right:g} of {items} items, which is not shown to be so far above "
        f"chance ({task.spec.chance:.1%}) that guessing would fail",
    )


def _rising(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether the candidate's answers are cut off or empty oftener than the baseline's.

    A quantized model that rambles to the end of its budget, or says nothing, is sick even where its
    score holds. The same item is compared in both arms, by McNemar's exact test; and because a rise
    of a few answers is significant where the baseline has none, it must also be larger than the
    suite tolerates.
    """
    for reason, kind, is_so in _ENDINGS:
        before = sum(is_so(pair.baseline) for pair in task.pairs)
        after = sum(is_so(pair.candidate) for pair in task.pairs)
        more = sum(is_so(p.candidate) and not is_so(p.baseline) for p in task.pairs)
        p_value = p_worse(more, before - after + more)
        if after - before > suite.max_rise * len(task.pairs) and p_value <= 1 - suite.confidence:
            return QualityIssue(
                reason,
                f"{after} of the candidate's {len(task.pairs)} answers are {kind}, where "
                f"{before} of the baseline's are (p = {p_value:.2g}) and a rise of "
                f"{suite.max_rise:.1%} is tolerated",
            )
    return None


_CHECKS: tuple[Callable[[TaskPairs, Suite], QualityIssue | None], ...] = (
    _missing,
    _failed,
    _truncated,
    _rising,
    _weak_baseline,
)
