"""The verdict in words: the sentence that carries the evidence, and what it holds for."""

import dataclasses
from typing import NamedTuple

from harness.artifacts import (
    Decision,
    Deployment,
    DeploymentsTrial,
    Finding,
    Gap,
    MissingEvidence,
    PooledTest,
    Scale,
    Severity,
    SmokeReport,
    Suite,
    TaskVerdict,
    ThinExperts,
    Tier,
)
from harness.errors import ReasonCode
from harness.gate.objections import Objection, said_of

_SCORED = {ReasonCode.TASK_INFERIOR, ReasonCode.CLAIM_REFUTED, ReasonCode.NOT_ENOUGH_EVIDENCE}
"""Reasons that the scores give."""


class Conditions(NamedTuple):
    """What was seen of a candidate beside its scores."""

    deployment: Deployment
    verified: bool
    """Whether its files passed verification."""
    smoke: SmokeReport | None = None
    coverage: ThinExperts | None = None
    """Experts that saw too little in the calibration; None where that is not known."""
    gaps: tuple[Gap, ...] = ()
    """What an engine did not show."""
    missing_evidence: MissingEvidence = MissingEvidence.INCONCLUSIVE
    """What may be said in spite of it."""
    objections: tuple[Objection, ...] = ()
    """What the further gates say."""


def points(fraction: float) -> str:
    """Return a fraction of 1 as signed percentage points."""
    return f"{100 * fraction:+.2f}"


def from_to(task: TaskVerdict) -> str:
    """Return both arms' scores in their unit."""
    before, after = task.baseline or 0, task.candidate or 0
    match task.scale:
        case Scale.SHARE:
            return f"from {before:.1%} to {after:.1%}"
        case Scale.PERPLEXITY:
            return f"from a perplexity of {before:.5g} to {after:.5g}"
        case Scale.BITS:
            return f"from {before:.4f} to {after:.4f} bits a byte"


def not_exercised(deployment: Deployment, smoke: SmokeReport | None = None) -> tuple[str, ...]:
    """Return the parts of the checkpoint's arithmetic that are known to be computed by nothing.

    A part that kernels hide counts where a smoke run of it passed.
    """
    unknown = set(_unknown(deployment))
    return tuple(part for part in _unseen(deployment, smoke) if part not in unknown)


def _unseen(deployment: Deployment, smoke: SmokeReport | None) -> tuple[str, ...]:
    computed = {*deployment.exercised, *_smoked(smoke)}
    return tuple(part for part in deployment.declared if part not in computed)


def _smoked(smoke: SmokeReport | None) -> tuple[str, ...]:
    return smoke.exercised if smoke and smoke.passed else ()


def _unknown(deployment: Deployment) -> tuple[str, ...]:
    return tuple(part for gap in deployment.not_observed for part in gap.parts)


def gaps_of(
    candidate: Deployment, baseline: Deployment, smoke: SmokeReport | None = None
) -> tuple[Gap, ...]:
    """Return what the engines of both arms did not show.

    Which kernels compute an unquantized baseline decides nothing, and where a smoke run of the
    declared numerics passed, it computed what kernels of the deployed ones may hide.
    """
    smoked = frozenset(_smoked(smoke))
    shown = (
        gap for gap in candidate.not_observed if not (gap.parts and smoked.issuperset(gap.parts))
    )
    loaded = (
        dataclasses.replace(gap, message=f"of the baseline, {gap.message}")
        for gap in baseline.not_observed
        if gap.reason is not ReasonCode.KERNELS_UNKNOWN
    )
    return (*shown, *loaded)


def reasons_of(gaps: tuple[Gap, ...]) -> tuple[ReasonCode, ...]:
    """Return the names of what was not seen, each once."""
    return tuple(dict.fromkeys(gap.reason for gap in gaps))


def _unseen_by_a_go(gaps: tuple[Gap, ...]) -> str:
    """Return what a GO is said in spite of, as the end of its sentence."""
    return f"; not seen, as this run may: {', '.join(reasons_of(gaps))}" if gaps else ""


def faults(deployment: Deployment) -> tuple[Finding, ...]:
    """Return what the deployment shows that forbids a release whatever the scores are."""
    return tuple(f for f in deployment.findings if f.severity is Severity.ERROR)


def evidence(
    reason: ReasonCode,
    tasks: tuple[TaskVerdict, ...],
    pooled: PooledTest | None,
    conditions: Conditions,
) -> str:
    """Return what decided, as a clause with numbers."""
    critical = [t for t in tasks if t.tier is Tier.CRITICAL]
    if reason is ReasonCode.NON_INFERIOR:
        return _closest_call(critical) + _unseen_by_a_go(conditions.gaps) + _warned(conditions)
    seen = _seen_of_deployment(reason, conditions) or _seen_of_run(reason, pooled, conditions)
    culprits = [t for t in critical if t.reason is reason]
    if seen is not None:
        return seen
    if culprits:
        return _worst_of(culprits)
    nothing = "the suite has no critical task, so nothing that gates was measured"
    return said_of(conditions.objections, reason) or nothing


def _warned(conditions: Conditions) -> str:
    """Return the warnings that a GO carries, as the end of its sentence."""
    warnings = [one for one in conditions.objections if one.decision is Decision.GO]
    return "".join(f"; a warning, {one.reason}: {one.message}" for one in warnings[:1])


def _seen_of_deployment(reason: ReasonCode, conditions: Conditions) -> str | None:
    """Return the finding or the gap behind a reason."""
    fault = next((f for f in faults(conditions.deployment) if f.reason is reason), None)
    if fault is not None:
        return f"{fault.id}: {fault.message}"
    gap = next((gap for gap in conditions.gaps if gap.reason is reason), None)
    return None if gap is None else f"{gap.reason}: {gap.message}"


def _seen_of_run(
    reason: ReasonCode, pooled: PooledTest | None, conditions: Conditions
) -> str | None:
    """Return what stands behind a reason that is of no single task."""
    match reason:
        case ReasonCode.VERIFY_SKIPPED:
            return "the checkpoint was not verified, and a run without verification never passes"
        case ReasonCode.NUMERICS_NOT_EXERCISED:
            parts = ", ".join(not_exercised(conditions.deployment, conditions.smoke))
            return f"the checkpoint declares arithmetic that was not computed: {parts}"
        case ReasonCode.LOW_COVERAGE:
            return str(conditions.coverage)
        case ReasonCode.POOLED_ALARM if pooled is not None:
            return f"over all tasks together it {pooled.message}"
        case _:
            return None


def scope(suite: Suite, baseline: Deployment, conditions: Conditions) -> tuple[str, ...]:
    """Return what the verdict holds for, one fact a line."""
    candidate, smoke = conditions.deployment, conditions.smoke
    num_critical = sum(spec.tier is Tier.CRITICAL for spec in suite.tasks)
    kernels = ", ".join(f"{part} {name}" for part, name in sorted(candidate.kernels.items()))
    tasks = f"{num_critical} critical and {len(suite.tasks) - num_critical} advisory tasks"
    lines = [
        f"suite {suite.name}: {tasks}, each bound at {suite.confidence:.0%} confidence",
        f"engine {candidate.engine} {candidate.version} on {candidate.device}, {candidate.dtype}",
        f"kernels: {kernels or 'not recorded'}",
        f"arithmetic computed: {candidate.computed}",
    ]
    if candidate.tensor_parallel_size > 1:
        lines.append(f"tensor parallel over {candidate.tensor_parallel_size} GPUs")
    lines += [f"{f.severity} {f.id}: {f.message}" for f in candidate.findings]
    lines += [f"not seen, {gap.reason}: {gap.message}" for gap in conditions.gaps]
    hidden, unseen = not_exercised(candidate, smoke), _unseen(candidate, smoke)
    if hidden:
        lines.append(f"declared but not computed: {', '.join(hidden)}")
    if unknown := [part for part in unseen if part not in hidden]:
        lines.append(f"declared, and not known to be computed: {', '.join(unknown)}")
    smoked = [part for part in _unseen(candidate, None) if part not in unseen]
    if smoked:
        lines.append(f"declared and not scored, smoked in emulation alone: {', '.join(smoked)}")
    lines.append(_smoke_line(smoke))
    if conditions.coverage is not None and conditions.coverage.num_thin:
        lines.append(str(conditions.coverage))
    if baseline.device != candidate.device:
        lines.append(f"the baseline was answered on {baseline.device}")
    return tuple(lines)


def not_compared(checkpoint: str) -> str:
    """Return what a verdict does not hold for, of a checkpoint that was made elsewhere."""
    return (
        "weights were not compared with the baseline's, so only their scores speak for them: "
        f"'harness verify {checkpoint} --source MODEL' compares them"
    )


def deployments_scope(trial: DeploymentsTrial) -> tuple[str, ...]:
    """Return what a verdict on two deployments that somebody else runs does not hold for."""
    candidate, baseline = trial.candidate_at, trial.baseline_at
    lines = [
        f"what {candidate} and {baseline} answered while the run lasted, and nothing else",
        "what stands at the baseline's address is taken for it: quantized or not is not known",
    ]
    if candidate.says != baseline.says:
        lines.append(
            f"the candidate says that it is {candidate.says} and the baseline {baseline.says}: "
            "what differs between the two is judged with the weights"
        )
    if candidate.protocol == "chat":
        lines.append(
            "chats were rendered by the servers, by templates that nobody here has seen, and no "
            "text was read token by token"
        )
    if trial.checkpoint is None:
        lines.append(
            "no files were verified: --checkpoint names those that the candidate is to run"
        )
    else:
        lines.append(
            f"the files in '{trial.checkpoint}' were looked at, and nothing proves that the "
            "candidate's server runs them"
        )
    return tuple(lines)


def _smoke_line(smoke: SmokeReport | None) -> str:
    if smoke is None:
        return "no smoke run came before the scores"
    if not smoke.measures:
        return f"smoke {smoke.smoke}: {'; '.join(check.message for check in smoke.checks)}"
    passed = sum(check.passed for check in smoke.checks)
    return (
        f"smoke {smoke.smoke} on {smoke.numerics} numerics: "
        f"{passed} of {len(smoke.checks)} checks passed"
    )


def _closest_call(critical: list[TaskVerdict]) -> str:
    closest = min(critical, key=_slack)
    count = len(critical)
    tasks = "the critical task is" if count == 1 else f"all {count} critical tasks are"
    if closest.ratio is not None:
        return (
            f"{tasks} within the margin; the closest is {closest.task}, {from_to(closest)} on "
            f"{closest.num_items} documents, a perplexity of at most {closest.ratio.high:.4f} "
            f"times the baseline's where {closest.ratio.allowed:.4f} is allowed"
        )
    return (
        f"{tasks} within the margin; the closest is {closest.task}, from "
        f"{closest.baseline or 0:.1%} to {closest.candidate or 0:.1%} on {closest.num_items} "
        f"items, a difference of at least {points(closest.low or 0)} points where "
        f"{points(-closest.margin)} is allowed"
    )


def _worst_of(culprits: list[TaskVerdict]) -> str:
    worst = min(culprits, key=_slack)
    scored = worst.reason in _SCORED
    change = f" went {from_to(worst)}," if scored else ":"
    others = len(culprits) - 1
    more = f" (and {others} more task{'s' if others > 1 else ''})" if others else ""
    return f"{worst.task}{change} {worst.message}{more}"


def _slack(task: TaskVerdict) -> float:
    """Return how far the lower bound is from the margin; negative where it is past it."""
    return task.margin + (task.low if task.low is not None else -1.0)
