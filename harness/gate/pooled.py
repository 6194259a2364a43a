"""One test over all items of all tasks, critical or not: a small loss that is everywhere.

Each task by itself may be within its margin while the candidate loses a little on every one.
Pooled, the items are many, so the test sees that: McNemar's exact test, or the sign-flip test
where values are not 0 or 1, or grouped. An alarm is a warning and changes no decision, because
it asks the wrong question of a lossy format: with enough items any loss is significant, and
correct NVFP4 really costs something on hard tasks. A suite that gives a `pooled_margin` asks the
right one, whether the loss is larger than that, and then the pool gates like a task: GO needs it
within even if every unknown item was lost, NO-GO needs it beyond even if all were won, and all that
came too late was right.

An item counts once: of several metrics of one task the first critical one is pooled. Perplexities
are no share of anything and are left out.
"""

from collections import Counter
from collections.abc import Sequence

from harness.artifacts import Decision, PooledTest, Suite, Tier
from harness.gate.claims import units_of
from harness.gate.clusters import quantile_of
from harness.gate.mcnemar import p_worse
from harness.gate.mean import Range, mean_bounds
from harness.gate.pairs import TaskPairs, is_right_or_wrong
from harness.gate.phrases import points
from harness.gate.signflip import Cluster, sign_flip_p
from harness.gate.tango import Bounds

_WITHIN = Range(-1.0, 1.0)


def pool(paired: Sequence[TaskPairs], suite: Suite) -> PooledTest | None:
    """Test all items together.

    Returns:
        None if no item was answered by both arms, unless a margin asks for proof: there nothing
        is shown, and that is never GO.
    """
    paired = [task for task in paired if task.spec.name in names_pooled(suite)]
    differences = [d for task in paired for d in task.differences(1.0)]
    if not differences:
        return None if suite.pooled_margin is None else _nothing(suite.pooled_margin)
    units = [unit for task in paired for unit in units_of(task, task.differences(1.0))]
    is_grouped = any(task.spec.cluster for task in paired)
    quantile = quantile_of(
        Counter(differences),
        units if is_grouped else None,
        confidence=suite.confidence,
        least=1.0,
    )
    bounds = mean_bounds(Counter(differences), _WITHIN, quantile=quantile)
    p_value = _p_value(paired, units)
    decision = _decide(paired, quantile, suite)
    lost, won = sum(d < 0 for d in differences), sum(d > 0 for d in differences)
    is_worse = p_value <= 1 - suite.confidence
    return PooledTest(
        num_items=len(differences),
        num_lost=lost,
        num_won=won,
        difference=sum(differences) / len(differences),
        low=bounds.low,
        high=bounds.high,
        p_value=p_value,
        margin=suite.pooled_margin,
        decision=decision,
        alarm=is_worse if suite.pooled_margin is None else decision is not Decision.GO,
        message=_message(lost, won, len(differences), bounds, suite)
        + f" (p = {p_value:.2g} of no loss at all)",
    )


def names_pooled(suite: Suite) -> frozenset[str]:
    """Return the tasks whose items are pooled."""
    shares = [task for task in suite.tasks if task.relative_margin is None]
    ranked = sorted(shares, key=lambda task: task.tier is not Tier.CRITICAL)
    first: dict[str, str] = {}
    for task in ranked:
        first.setdefault(task.asked, task.name)
    return frozenset(first.values())


def _p_value(paired: Sequence[TaskPairs], units: Sequence[Cluster]) -> float:
    if any(task.spec.cluster or not is_right_or_wrong(task.spec) for task in paired):
        return sign_flip_p(units)
    return p_worse(sum(len(t.lost) for t in paired), sum(len(t.won) for t in paired))


def _nothing(margin: float) -> PooledTest:
    return PooledTest(
        num_items=0,
        num_lost=0,
        num_won=0,
        difference=0.0,
        low=_WITHIN.lowest,
        high=_WITHIN.highest,
        p_value=1.0,
        margin=margin,
        decision=Decision.INCONCLUSIVE,
        alarm=True,
        message=f"shows nothing: both arms answered no item, where {points(-margin)} is allowed",
    )


def _decide(paired: Sequence[TaskPairs], quantile: float, suite: Suite) -> Decision:
    if suite.pooled_margin is None:
        return Decision.GO
    unknown = sum(task.num_unknown for task in paired)
    best = [d for task in paired for d in task.best_differences(1.0)]
    if _bounds([*best, *[1.0] * unknown], quantile).high < -suite.pooled_margin:
        return Decision.NO_GO
    worst = [d for task in paired for d in task.differences(1.0)]
    low = _bounds([*worst, *[-1.0] * unknown], quantile).low
    return Decision.GO if low > -suite.pooled_margin else Decision.INCONCLUSIVE


def _bounds(differences: Sequence[float], quantile: float) -> Bounds:
    return mean_bounds(Counter(differences), _WITHIN, quantile=quantile)


def _message(lost: int, won: int, items: int, bounds: Bounds, suite: Suite) -> str:
    allowed = ""
    if suite.pooled_margin is not None:
        allowed = f", where {points(-suite.pooled_margin)} is allowed"
    return (
        f"lost {lost} and won {won} of all {items} items: the difference lies between "
        f"{points(bounds.low)} and {points(bounds.high)} points{allowed}"
    )
