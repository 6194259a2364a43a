"""The three-way decision on one task.

NO-GO needs proof of a loss beyond the margin, and the proof must stand even if every item whose
answer is unknown had been won: an outage cannot make a good candidate bad. GO needs proof that
the loss is within the margin, and nothing that casts doubt on the data: an outage cannot make a
bad candidate good. Everything else is INCONCLUSIVE.
"""

from typing import NamedTuple

from harness.artifacts import Decision, Suite, TaskVerdict
from harness.errors import ReasonCode
from harness.gate.doubts import first_doubt
from harness.gate.pairs import Side, TaskPairs
from harness.gate.phrases import points
from harness.gate.tango import Bounds, tango_bounds


class _Ruling(NamedTuple):
    decision: Decision
    reason: ReasonCode
    message: str


def decide(task: TaskPairs, suite: Suite) -> TaskVerdict:
    """Judge one task."""
    bounds = _bounds(task, suite)
    ruling = _rule(task, suite, bounds)
    items = len(task.pairs)
    return TaskVerdict(
        task=task.spec.name,
        tier=task.spec.tier,
        baseline=_accuracy(task, task.sides[0]),
        candidate=_accuracy(task, task.sides[1]),
        num_items=items,
        num_lost=len(task.lost),
        num_won=len(task.won),
        difference=(len(task.won) - len(task.lost)) / items if items else None,
        low=bounds.low if bounds else None,
        high=bounds.high if bounds else None,
        margin=task.spec.margin,
        decision=ruling.decision,
        reason=ruling.reason,
        message=ruling.message,
    )


def _bounds(task: TaskPairs, suite: Suite) -> Bounds | None:
    if not task.pairs:
        return None
    return tango_bounds(len(task.lost), len(task.won), len(task.pairs), confidence=suite.confidence)


def _rule(task: TaskPairs, suite: Suite, bounds: Bounds | None) -> _Ruling:
    margin = task.spec.margin
    if _is_inferior(task, suite):
        return _Ruling(Decision.NO_GO, ReasonCode.TASK_INFERIOR, _evidence(task, bounds))
    doubt = first_doubt(task, suite)
    if doubt is not None or bounds is None:
        reason, message = doubt or (ReasonCode.SCORE_MISSING, "no item was answered by both arms")
        return _Ruling(Decision.INCONCLUSIVE, reason, message)
    if bounds.low > -margin:
        return _Ruling(Decision.GO, ReasonCode.NON_INFERIOR, _evidence(task, bounds))
    return _Ruling(Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE, _evidence(task, bounds))


def _is_inferior(task: TaskPairs, suite: Suite) -> bool:
    """Return whether the loss exceeds the margin even with every unknown item counted as won."""
    items = len(task.pairs) + task.num_unknown
    if not task.pairs:
        return False
    best_case = tango_bounds(
        len(task.lost), len(task.won) + task.num_unknown, items, confidence=suite.confidence
    )
    return best_case.high < -task.spec.margin


def _evidence(task: TaskPairs, bounds: Bounds | None) -> str:
    counts = f"lost {len(task.lost)} and won {len(task.won)} of {len(task.pairs)} items"
    if bounds is None:
        return counts
    return (
        f"{counts}: the difference lies between {points(bounds.low)} and "
        f"{points(bounds.high)} points, where {points(-task.spec.margin)} is allowed"
    )


def _accuracy(task: TaskPairs, side: Side) -> float | None:
    """Return the accuracy over the items that both arms answered, else the arm's own score."""
    if not task.pairs:
        return side.score.value if side.score else None
    index = task.sides.index(side)
    return sum(pair[index].value for pair in task.pairs) / len(task.pairs)
