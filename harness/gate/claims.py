"""The claim that a candidate is lossless, such as after an engine's upgrade or another parallelism.

The claim adds a way to fail and none to pass. If a task's losses are significant (McNemar's exact
test; the sign-flip test for grouped or repeated items and for values other than 0 and 1), the claim
is refuted, however small the losses are. If they are not significant, nothing has been shown, since
few items never show anything: the task must still lie within its margin.

Among several tasks some p value is small by chance, and one refuted claim is NO-GO. So a task is
refuted only by Holm's step-down over all critical tasks that make the claim. A p value that is
small by itself but not by Holm's is INCONCLUSIVE. So is one that is small only with the answers
that came too late: these count as wrong where GO is to be shown, and as right where NO-GO is.

Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal
of Statistics 6 (1979) 65-70.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harness.artifacts import Claim, Suite, Tier
from harness.gate.clusters import group_up
from harness.gate.mcnemar import p_worse
from harness.gate.pairs import TaskPairs, is_right_or_wrong
from harness.gate.signflip import Cluster, sign_flip_p


class ClaimTest(NamedTuple):
    """What the answers say of a task's claim."""

    p_value: float
    """Of so many losses without loss; every unknown item is counted as won, and late answers as
    right where the claim is refuted, else as wrong."""
    is_small: bool
    """Whether it is significant by itself."""
    is_refuted: bool
    """Whether it is significant among all critical tasks that make the claim."""


def examine_claims(paired: Sequence[TaskPairs], suite: Suite) -> Mapping[str, ClaimTest]:
    """Return the test of each task that claims to be lossless."""
    level = 1 - suite.confidence
    claimed = {t.spec.name: t for t in paired if t.spec.claim is Claim.LOSSLESS and t.items}
    critical = {name for name, task in claimed.items() if task.spec.tier is Tier.CRITICAL}
    at_best = {name: _p_of(task, task.best_differences(1.0)) for name, task in claimed.items()}
    least = _holm(sorted(p for name, p in at_best.items() if name in critical), level)
    found = {}
    for name, task in claimed.items():
        is_refuted = at_best[name] <= (least if name in critical else level)
        p_value = at_best[name] if is_refuted else _p_of(task, task.differences(1.0))
        found[name] = ClaimTest(p_value, p_value <= level, is_refuted)
    return found


def _p_of(task: TaskPairs, differences: Sequence[float]) -> float:
    """Return how often a candidate that is no worse would lose as much on this task."""
    if task.is_perplexity and task.num_unknown:
        return 1.0  # nothing bounds what an unknown document may have gained
    if is_right_or_wrong(task.spec) and not task.spec.cluster:
        return p_worse(differences.count(-1.0), differences.count(1.0) + task.num_unknown)
    return sign_flip_p([*units_of(task, differences), *[Cluster(1.0, 1)] * task.num_unknown])


def units_of(task: TaskPairs, differences: Sequence[float]) -> Sequence[Cluster]:
    """Return the differences that share a sign: those of a cluster, or each by itself."""
    if task.is_perplexity:
        return [Cluster(document.difference, 1) for document in task.documents]
    if task.spec.cluster:
        return group_up(differences, task.clusters)
    return [Cluster(difference, 1) for difference in differences]


def _holm(ascending: Sequence[float], level: float) -> float:
    """Return the largest p value that Holm's step-down rejects; below 0 if none."""
    least = -1.0
    for rank, p in enumerate(ascending):
        if p > level / (len(ascending) - rank):
            break
        least = p
    return least
