"""What forbids GO for a task however good its difference looks.

Each check is one function that looks at the whole task and returns the reason and a sentence, or
None. They are asked in order and the first one that speaks is reported.
"""

from collections.abc import Callable
from typing import NamedTuple

from harness.artifacts import Sample, Suite, TaskScore, TaskSpec, in_unit, mean_of
from harness.errors import ReasonCode
from harness.gate.forms import baseline_low
from harness.gate.mcnemar import p_worse
from harness.gate.outlook import is_above_guessing
from harness.gate.pairs import Side, TaskPairs
from harness.gate.signflip import Cluster, sign_flip_p

_ENDINGS: tuple[tuple[ReasonCode, str, Callable[[Sample], bool]], ...] = (
    (
        ReasonCode.TRUNCATION_RISE,
        "cut off",
        lambda sample: sample.is_cut or sample.finish == "timeout",
    ),
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
        problem = _what_is_missing(side, task.spec)
        if problem:
            return QualityIssue(ReasonCode.SCORE_MISSING, f"the {side.arm} {problem}")
    return None


def _what_is_missing(side: Side, spec: TaskSpec) -> str | None:
    score = side.score
    if score is None:
        return "has no score"
    times = f", each {score.repeats} of {spec.repeats} times" if spec.repeats > 1 else ""
    if score.num_items < spec.items or score.repeats < spec.repeats:
        return f"answered {score.num_items} of {spec.items} items{times}"
    if len(side.samples) != score.num_answers:
        return f"has {len(side.samples)} samples behind a score of {score.num_items} items{times}"
    if score.num_prompts_cut:
        return f"lost tokens of {score.num_prompts_cut} prompts that did not fit"
    return _what_differs(side, score)


def _what_differs(side: Side, score: TaskScore) -> str | None:
    """Ask whether a score is the one that its samples make, where all of them are known."""
    all_known = not score.num_errors and all(s.is_known for s in side.samples)
    if not all_known or not side.samples:
        return None
    made = in_unit(mean_of(side.samples), score.scale)
    if abs(made - score.value) > 1e-6 * max(abs(made), 1.0):
        return f"has the score {score.value:.4f}, but its samples' mean is {made:.4f}"
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
    # A late answer of a candidate is known to be wrong, but nothing is known of an unread text.
    for side in task.sides if task.is_perplexity else task.sides[:1]:
        late = sum(sample.finish == "timeout" for sample in side.samples)
        if late:
            return QualityIssue(
                ReasonCode.REQUEST_ERRORS,
                f"{late} of the {side.arm}'s answers did not come in time, so they are unknown",
            )
    return None


def _truncated(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether answers ended by themselves."""
    for side in task.sides:
        score = side.score
        if score is None:
            continue
        cut = score.num_truncated + score.num_timeouts
        if cut > suite.max_truncated * score.num_answers:
            return QualityIssue(
                ReasonCode.TRUNCATED_ANSWERS,
                f"{cut} of the {side.arm}'s {score.num_answers} answers outran their budget"
                f"{_in_detail(score)}, where the suite tolerates {suite.max_truncated:.1%}",
            )
    return None


def _in_detail(score: TaskScore) -> str:
    """Return which budget was outrun, as far as that is told apart."""
    parts = []
    if score.num_thoughts_cut:
        rest = score.num_truncated - score.num_thoughts_cut
        parts += [f"{score.num_thoughts_cut} that of their thoughts", f"{rest} their own"]
    if score.num_timeouts:
        parts.append(f"{score.num_timeouts} the time for an answer")
    return f" ({', '.join(parts)})" if parts else ""


def _weak_baseline(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether a candidate that guesses would have to lose more than the margin.

    If it would not, the comparison cannot tell a good candidate from token salad.
    """
    items = len(task.items)
    low = baseline_low(task, confidence=suite.confidence)
    if is_above_guessing(task.spec, low):
        return None
    if task.is_perplexity:
        return QualityIssue(
            ReasonCode.BASELINE_TOO_WEAK,
            "the baseline's perplexity is not shown to be so far below "
            f"{1 / task.spec.chance:.6g}, which guessing gets, that guessing would fail",
        )
    right = sum(item.baseline for item in task.items)
    return QualityIssue(
        ReasonCode.BASELINE_TOO_WEAK,
        f"the baseline answers {right:g} of {items} items, which is not shown to be so far above "
        f"chance ({task.spec.chance:.1%}) that guessing would fail",
    )


def _rising(task: TaskPairs, suite: Suite) -> QualityIssue | None:
    """Ask whether the candidate's answers are cut off or empty oftener than the baseline's.

    A quantized model that rambles to the end of its budget, or says nothing, is sick even where its
    score holds. The same item is compared in both arms, by McNemar's exact test, or where items are
    asked several times by the sign-flip test over items; and because a rise of a few answers is
    significant where the baseline has none, it must also be larger than the suite tolerates.
    """
    for reason, kind, is_so in _ENDINGS:
        before = sum(is_so(pair.baseline) for pair in task.pairs)
        after = sum(is_so(pair.candidate) for pair in task.pairs)
        p_value = _p_of_rise(task, is_so)
        if after - before > suite.max_rise * len(task.pairs) and p_value <= 1 - suite.confidence:
            return QualityIssue(
                reason,
                f"{after} of the candidate's {len(task.pairs)} answers are {kind}, where "
                f"{before} of the baseline's are (p = {p_value:.2g}) and a rise of "
                f"{suite.max_rise:.1%} is tolerated",
            )
    return None


def _p_of_rise(task: TaskPairs, is_so: Callable[[Sample], bool]) -> float:
    """Return how often as large a rise would be seen were there none."""
    rises = [
        sum(is_so(p.candidate) - is_so(p.baseline) for p in item.answers) for item in task.items
    ]
    if task.spec.repeats == 1:
        return p_worse(rises.count(1), rises.count(-1))
    return sign_flip_p([Cluster(float(-rise), 1) for rise in rises])


_CHECKS: tuple[Callable[[TaskPairs, Suite], QualityIssue | None], ...] = (
    _missing,
    _failed,
    _truncated,
    _rising,
    _weak_baseline,
)
