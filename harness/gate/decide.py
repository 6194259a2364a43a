"""The three-way decision on one task.

NO-GO needs proof of a loss beyond what the task allows, and the proof must stand even if every
item whose answer is unknown had been won: an outage cannot make a good candidate bad. GO needs
proof that the loss is allowed, and nothing that casts doubt on the data: an outage cannot make a
bad candidate good. Everything else is INCONCLUSIVE.
"""

import math
from typing import NamedTuple

from harness.artifacts import (
    Decision,
    Ratio,
    Recovery,
    Scale,
    Suite,
    TaskVerdict,
    in_unit,
    mean_of,
)
from harness.errors import ReasonCode
from harness.gate.claims import ClaimTest
from harness.gate.forms import Measured, measure, ratio_noun, recovery_of
from harness.gate.length import length_of
from harness.gate.outlook import allowed_by
from harness.gate.pairs import Side, TaskPairs
from harness.gate.phrases import points
from harness.gate.quality import first_issue
from harness.gate.ratio import MIN_DOCUMENTS, ratio_of
from harness.gate.repeated import estimate


class _Ruling(NamedTuple):
    decision: Decision
    reason: ReasonCode
    message: str


class _Shown(NamedTuple):
    """What both arms' answers show."""

    measured: Measured
    recovery: Recovery | None
    ratio: Ratio | None
    claim: ClaimTest | None
    is_beyond: bool
    """Whether a loss beyond what is allowed is proven."""


def decide(
    task: TaskPairs,
    suite: Suite,
    *,
    claim: ClaimTest | None,
    rerun_flip_rate: float | None,
    no_go_confidence: float | None = None,
) -> TaskVerdict:
    """Judge one task.

    Args:
        task: both arms' answers.
        suite: what counts as shown.
        claim: the test of the task's claim, if it makes one.
        rerun_flip_rate: share of items that the baseline answered otherwise in a second run.
        no_go_confidence: with which a loss must be proven, where it was looked at before; by
            default the suite's.
    """
    shown = _look_at(task, suite, claim, no_go_confidence or suite.confidence)
    ruling = _rule(task, suite, shown)
    items = len(task.items)
    baseline, candidate = (_accuracy(task, side) for side in task.sides)
    left_over = (1 - task.spec.kept) * (baseline or 0.0)
    bounds = shown.measured.bounds if shown else None
    return TaskVerdict(
        task=task.spec.name,
        tier=task.spec.tier,
        baseline=baseline,
        candidate=candidate,
        num_items=items,
        num_lost=len(task.lost),
        num_won=len(task.won),
        difference=_difference(task),
        low=_known(bounds.low - left_over) if bounds else None,
        high=_known(bounds.high - left_over) if bounds else None,
        margin=left_over if task.spec.recovery is not None else allowed_by(task.spec),
        decision=ruling.decision,
        reason=ruling.reason,
        message=ruling.message,
        method=shown.measured.method if shown else "",
        recovery=shown.recovery if shown else None,
        scale=_scale(task),
        ratio=shown.ratio if shown else None,
        num_clusters=shown.measured.num_clusters if shown else None,
        p_value=claim.p_value if claim else None,
        rerun_flip_rate=rerun_flip_rate,
        length=length_of(task, suite),
        repeats=task.spec.repeats,
        estimates=estimate(task),
    )


def _look_at(
    task: TaskPairs, suite: Suite, claim: ClaimTest | None, no_go_confidence: float
) -> _Shown | None:
    if not task.items:
        return None
    measured = measure(task, confidence=suite.confidence)
    recovery = recovery_of(task, confidence=suite.confidence)
    strict = measured
    if no_go_confidence != suite.confidence:
        strict = measure(task, confidence=no_go_confidence)
    return _Shown(measured, recovery, ratio_noun(task, measured), claim, strict.is_beyond)


def _rule(task: TaskPairs, suite: Suite, shown: _Shown | None) -> _Ruling:
    if shown is None:
        nothing = ReasonCode.SCORE_MISSING, "no item was answered by both arms"
        return _Ruling(Decision.INCONCLUSIVE, *(first_issue(task, suite) or nothing))
    evidence = _evidence(task, shown)
    if shown.is_beyond:
        return _Ruling(Decision.NO_GO, ReasonCode.TASK_INFERIOR, evidence)
    if shown.claim and shown.claim.is_refuted:
        return _Ruling(Decision.NO_GO, ReasonCode.CLAIM_REFUTED, evidence)
    issue = first_issue(task, suite)
    if issue is not None:
        return _Ruling(Decision.INCONCLUSIVE, *issue)
    is_clean = shown.claim is None or not shown.claim.is_small
    if shown.measured.is_within and is_clean:
        return _Ruling(Decision.GO, ReasonCode.NON_INFERIOR, evidence)
    return _Ruling(Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE, evidence)


def _evidence(task: TaskPairs, shown: _Shown) -> str:
    """Return what was counted, what follows, and what is allowed."""
    text = f"lost {len(task.lost)} and won {len(task.won)} of {len(task.items)} items"
    if task.spec.repeats > 1:
        text += f", each asked {task.spec.repeats} times"
    text += ": "
    recovery, bounds = shown.recovery, shown.measured.bounds
    if task.is_perplexity:
        text = _of_perplexity(task, shown)
    elif recovery is not None:
        text += (
            f"it keeps {recovery.observed:.2%} of the baseline's accuracy, between "
            f"{recovery.low:.2%} and {recovery.high:.2%}, where {recovery.required:.2%} is asked"
        )
    else:
        text += (
            f"the difference lies between {points(bounds.low)} and {points(bounds.high)} points, "
            f"where {points(shown.measured.limit)} is allowed"
        )
    if shown.claim is not None:
        text += f"; without loss, so many would be lost with p = {shown.claim.p_value:.2g}"
    return text


def _of_perplexity(task: TaskPairs, shown: _Shown) -> str:
    items, ratio = len(task.pairs), shown.ratio
    if ratio is None:
        few = f"{items} documents show nothing of a perplexity, {MIN_DOCUMENTS} or more are needed"
        return f"{few} (with words, and in clusters where there are some)"
    return (
        f"{len(task.lost)} of {items} documents became less likely and {len(task.won)} more: the "
        f"perplexity is {ratio.observed:.4f} times the baseline's, between {ratio.low:.4f} and "
        f"{ratio.high:.4f}, where {ratio.allowed:.4f} is allowed (spread {ratio.spread:.3g})"
    )


def _difference(task: TaskPairs) -> float | None:
    if not task.items:
        return None
    if task.is_perplexity:
        documents = task.documents
        return ratio_of(documents) if any(d.weight for d in documents) else None
    return math.fsum(task.differences(1.0)) / len(task.items)


def _known(bound: float) -> float | None:
    """Return a bound; None where it is infinite, so that nothing is shown."""
    return bound if math.isfinite(bound) else None


def _scale(task: TaskPairs) -> Scale:
    return next((side.score.scale for side in task.sides if side.score), Scale.SHARE)


def _accuracy(task: TaskPairs, side: Side) -> float | None:
    """Return the score over the items that both arms answered, else the arm's own."""
    if not task.items:
        return side.score.value if side.score else None
    if task.is_perplexity:
        index = task.sides.index(side)
        return in_unit(mean_of(pair[index] for pair in task.pairs), _scale(task))
    means = [i.baseline if side is task.sides[0] else i.candidate for i in task.items]
    return sum(means) / len(means)
