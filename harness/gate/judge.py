"""The verdict on a candidate: NO-GO wins over INCONCLUSIVE, which wins over GO.

Critical tasks gate, each by itself. That every one of them must pass needs no correction for
their number: a bad candidate must be lucky on the very task it is bad at. Advisory tasks are
reported with the same numbers and change nothing.
"""

from typing import NamedTuple

from harness.artifacts import Arm, Decision, Deployment, Suite, TaskVerdict, Tier, Verdict
from harness.errors import ReasonCode
from harness.gate.comparable import check_comparable
from harness.gate.decide import decide
from harness.gate.flips import choose_flips
from harness.gate.pairs import pair
from harness.gate.phrases import evidence, faults, not_exercised, scope

_PRECEDENCE = (
    ReasonCode.SCALE_MISSING,
    ReasonCode.SCALE_MISMATCH,
    ReasonCode.LOAD_MISMATCH,
    ReasonCode.ENGINE_FAILED,
    ReasonCode.TASK_INFERIOR,
    ReasonCode.SCORE_MISSING,
    ReasonCode.REQUEST_ERRORS,
    ReasonCode.TRUNCATED_ANSWERS,
    ReasonCode.BASELINE_TOO_WEAK,
    ReasonCode.NOT_ENOUGH_EVIDENCE,
    ReasonCode.VERIFY_SKIPPED,
    ReasonCode.NUMERICS_NOT_EXERCISED,
)
"""Reasons in the order in which they decide; the first one found is the verdict's own."""


class Subject(NamedTuple):
    """What is being judged, as a person would name it."""

    model: str
    scheme: str


def judge(
    suite: Suite,
    baseline: Arm,
    candidate: Arm,
    *,
    verified: bool,
    subject: Subject | None = None,
) -> Verdict:
    """Compare a candidate with its baseline.

    Args:
        suite: what was asked, and the margins.
        baseline: the unquantized model's answers.
        candidate: the quantized model's answers to the same items.
        verified: whether the checkpoint's files passed verification; without, never GO.
        subject: names for the verdict; by default those of the candidate's deployment.

    Raises:
        IncomparableError: the arms did not answer the same questions under the same conditions.
        SuiteError: a metric is not 0 or 1 for each item.
    """
    check_comparable(suite, baseline, candidate)
    deployment = candidate.scorecard.deployment
    subject = subject or Subject(deployment.model, " ".join(deployment.declared) or "unquantized")
    paired = tuple(pair(spec, baseline, candidate) for spec in suite.tasks)
    tasks = tuple(decide(task, suite) for task in paired)
    reasons = _reasons(tasks, deployment, verified=verified)
    decision = _decision(reasons[0], deployment)
    num_items = sum(t.num_items for t in tasks)
    num_lost, num_won = sum(t.num_lost for t in tasks), sum(t.num_won for t in tasks)
    return Verdict(
        decision=decision,
        reason_codes=reasons,
        summary=f"{decision.value}: {evidence(reasons[0], tasks, deployment)}.",
        model=subject.model,
        scheme=subject.scheme,
        suite=suite.name,
        tasks=tasks,
        flips=choose_flips(paired),
        flip_rate=(num_lost + num_won) / num_items if num_items else None,
        pooled_difference=(num_won - num_lost) / num_items if num_items else None,
        scope=scope(suite, baseline.scorecard.deployment, deployment),
    )


def _reasons(
    tasks: tuple[TaskVerdict, ...], deployment: Deployment, *, verified: bool
) -> tuple[ReasonCode, ...]:
    """Return every reason against GO, the one that decides first; else why it is GO."""
    critical = [t for t in tasks if t.tier is Tier.CRITICAL]
    found = {t.reason for t in critical if t.decision is not Decision.GO}
    if not critical:
        found.add(ReasonCode.SCORE_MISSING)
    found |= {finding.reason for finding in faults(deployment)}
    if not verified:
        found.add(ReasonCode.VERIFY_SKIPPED)
    if not_exercised(deployment):
        found.add(ReasonCode.NUMERICS_NOT_EXERCISED)
    return tuple(sorted(found, key=_PRECEDENCE.index)) or (ReasonCode.NON_INFERIOR,)


def _decision(decisive: ReasonCode, deployment: Deployment) -> Decision:
    if decisive is ReasonCode.NON_INFERIOR:
        return Decision.GO
    is_fault = any(finding.reason is decisive for finding in faults(deployment))
    if is_fault or decisive is ReasonCode.TASK_INFERIOR:
        return Decision.NO_GO
    return Decision.INCONCLUSIVE
