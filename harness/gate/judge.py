"""The verdict on a candidate: NO-GO wins over INCONCLUSIVE, which wins over GO.

Critical tasks gate, each by itself. That every one of them must pass needs no correction for
their number: a bad candidate must be lucky on the very task it is bad at. Advisory tasks are
reported with the same numbers and change nothing. All items of all tasks together are a test of
their own (`pooled`), which gates where the suite gives it a margin and else only warns.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import (
    Arm,
    Decision,
    Deployment,
    LengthVerdict,
    MissingEvidence,
    PooledTest,
    Scale,
    Scorecard,
    SizeVerdict,
    SmokeReport,
    SpeedVerdict,
    Suite,
    TaskVerdict,
    ThinExperts,
    Tier,
    Verdict,
    Waiver,
)
from harness.errors import ReasonCode
from harness.gate.bought import bought
from harness.gate.claims import examine_claims
from harness.gate.comparable import check_conditions, check_items
from harness.gate.decide import decide
from harness.gate.early import as_asked, conclude
from harness.gate.flips import choose_flips
from harness.gate.length import length_objections, length_of_all
from harness.gate.objections import SEVERITY, Objection, decisions_of, warnings_of
from harness.gate.pairs import TaskPairs, pair
from harness.gate.phrases import (
    Conditions,
    evidence,
    faults,
    gaps_of,
    not_exercised,
    reasons_of,
    scope,
)
from harness.gate.pooled import pool
from harness.gate.published import (
    BaselineNames,
    beside_published,
    published_objections,
    published_scope,
)
from harness.gate.rerun import Flips, count_flips, sum_flips
from harness.gate.speed import compare_speeds, speed_objections
from harness.gate.waivers import name_waivers, waive_checks, waive_findings

_PRECEDENCE = (
    ReasonCode.SCALE_MISSING,
    ReasonCode.SCALE_MISMATCH,
    ReasonCode.LOAD_MISMATCH,
    ReasonCode.ENGINE_FAILED,
    ReasonCode.TASK_INFERIOR,
    ReasonCode.CLAIM_REFUTED,
    ReasonCode.ANSWERS_LONGER,
    ReasonCode.ANSWERS_SHORTER,
    ReasonCode.ANSWERS_SLOWER,
    ReasonCode.SCORE_MISSING,
    ReasonCode.ENDED_EARLY,
    ReasonCode.REQUEST_ERRORS,
    ReasonCode.BASELINE_UNLIKE_PUBLISHED,
    ReasonCode.TRUNCATED_ANSWERS,
    ReasonCode.TRUNCATION_RISE,
    ReasonCode.EMPTY_RISE,
    ReasonCode.BASELINE_TOO_WEAK,
    ReasonCode.NOT_ENOUGH_EVIDENCE,
    ReasonCode.POOLED_ALARM,
    ReasonCode.LOW_COVERAGE,
    ReasonCode.VERIFY_SKIPPED,
    ReasonCode.LOAD_NOT_RECONCILED,
    ReasonCode.KERNELS_UNKNOWN,
    ReasonCode.ENDINGS_UNKNOWN,
    ReasonCode.NUMERICS_NOT_EXERCISED,
)
"""Reasons in the order in which they decide; of those found that decide alike, the first one is
the verdict's own."""


class Subject(NamedTuple):
    """What is being judged, as a person would name it."""

    model: str
    scheme: str
    baseline: str = ""
    """What it is compared with; by default the folder that was served."""
    also: tuple[str, ...] = ()
    """What the baseline's own configuration calls it."""

    @property
    def names(self) -> BaselineNames:
        """Return what the baseline is called, by whom."""
        return BaselineNames(self.baseline, self.also)

    def compared(self, candidate: Deployment, baseline: Deployment) -> str:
        """Return what was compared with what, by the digests of their files where it has any."""
        if candidate.address:
            return (
                f"the deployment of '{self.model}' at {candidate.address}, compared with that of "
                f"{self.baseline}"
            )
        return (
            f"checkpoint {candidate.checkpoint_digest:.12}, compared with the unquantized "
            f"{self.baseline}, {baseline.checkpoint_digest:.12}"
        )


def judge(  # noqa: PLR0913  the one door; each argument is another stage's result
    suite: Suite,
    baseline: Arm,
    candidate: Arm,
    *,
    verified: bool,
    subject: Subject | None = None,
    rerun: Arm | None = None,
    smoke: SmokeReport | None = None,
    coverage: ThinExperts | None = None,
    waivers: tuple[Waiver, ...] = (),
    missing_evidence: MissingEvidence = MissingEvidence.INCONCLUSIVE,
    size: SizeVerdict | None = None,
) -> Verdict:
    """Compare a candidate with its baseline.

    Args:
        suite: what was asked, and the margins.
        baseline: the unquantized model's answers.
        candidate: the quantized model's answers to the same items.
        verified: whether the checkpoint's files passed verification; without, never GO.
        subject: names for the verdict; by default those of the candidate's deployment.
        rerun: the unquantized model's answers when it was asked again; shown, decides nothing.
        smoke: the smoke run before scoring, of the declared numerics where kernels hide them.
        coverage: experts that calibration showed too little, where the run calibrated.
        waivers: those that answer for a check of this checkpoint that failed.
        missing_evidence: what may be said where an engine did not show all that is asked of it.
        size: the weight files of both; shown, for what is not reduced is refused before.

    Raises:
        IncomparableError: the arms did not answer the same questions under the same conditions.
        SuiteError: a metric's value is none that the suite says.
    """
    deployment = waive_findings(candidate.scorecard.deployment, waivers)
    subject = _named(subject, deployment, compared := baseline.scorecard.deployment)
    paired, flips, tasks, pooled, seen = _compare(suite, baseline, candidate, rerun, subject.names)
    gaps = gaps_of(deployment, compared, smoke := waive_checks(smoke, waivers))
    conditions = Conditions(deployment, verified, smoke, coverage, gaps, missing_evidence)
    costs = _costs_of(suite, paired, (baseline.scorecard, candidate.scorecard), size)
    objections = tuple(_objections(suite, paired, tasks, costs))
    ruling = _rule(tasks, pooled, conditions._replace(objections=objections))
    verdict = Verdict(
        decision=ruling.decision,
        reason_codes=ruling.reasons,
        summary=ruling.summary,
        model=subject.model,
        scheme=subject.scheme,
        suite=suite.name,
        tasks=tasks,
        flips=choose_flips(paired),
        flip_rate=_flip_rate(tasks),
        pooled_difference=pooled.difference if pooled and pooled.num_items else None,
        scope=(subject.compared(deployment, compared), *scope(suite, compared, conditions)),
        pooled=pooled,
        rerun_flip_rate=sum_flips(flips.values()).rate,
        checkpoint_digest=deployment.checkpoint_digest,
        baseline=subject.baseline,
        baseline_digest=compared.checkpoint_digest,
    )
    return name_waivers(_with_costs(verdict, costs, seen), waivers)


class _Costs(NamedTuple):
    """What the candidate takes beside the baseline."""

    size: SizeVerdict | None
    speed: SpeedVerdict | None
    length: LengthVerdict | None


def _costs_of(
    suite: Suite,
    paired: tuple[TaskPairs, ...],
    cards: tuple[Scorecard, Scorecard],
    size: SizeVerdict | None,
) -> _Costs:
    return _Costs(size, compare_speeds(suite, *cards), length_of_all(paired, suite))


def _objections(
    suite: Suite,
    paired: tuple[TaskPairs, ...],
    tasks: tuple[TaskVerdict, ...],
    costs: _Costs,
) -> Iterator[Objection]:
    """Yield what the further gates say."""
    yield from length_objections(paired, tasks, suite)
    yield from speed_objections(costs.speed, suite)
    yield from published_objections(tasks)


def _with_costs(verdict: Verdict, costs: _Costs, looked: tuple[str, ...]) -> Verdict:
    """Return the verdict with what an answer costs; a GO says what it buys.

    What was compared with published scores stands at the end of its scope, and before it what was
    looked at early.
    """
    buys, summary = bought(*costs), verdict.summary
    if buys and verdict.decision is Decision.GO:
        summary += f" Beside the baseline: {buys}."
    beside = (*verdict.scope, *looked, *published_scope(verdict.tasks))
    return dataclasses.replace(verdict, **costs._asdict(), buys=buys, summary=summary, scope=beside)


class _Compared(NamedTuple):
    """Both arms' answers in pairs, and what they show."""

    paired: tuple[TaskPairs, ...]
    flips: Mapping[str, Flips]
    """Of the baseline's second run, by task."""
    tasks: tuple[TaskVerdict, ...]
    pooled: PooledTest | None
    looked: tuple[str, ...]
    """What was looked at before all was answered, and what was not asked, a fact a line."""


def _compare(
    suite: Suite, baseline: Arm, candidate: Arm, rerun: Arm | None, names: BaselineNames
) -> _Compared:
    check_conditions(suite, baseline, candidate)
    suite, baseline, surely, looked = as_asked(suite, baseline, candidate)
    ended = candidate.scorecard.ended
    check_items(suite, baseline, candidate)
    flips = count_flips(baseline, rerun) if rerun else {}
    paired = tuple(pair(spec, baseline, candidate) for spec in suite.tasks)
    decided = _decide_each(paired, suite, flips, surely)
    tasks = tuple(conclude(task, ended) for task in decided)
    tasks = beside_published(tasks, paired, suite, baseline.scorecard, names)
    return _Compared(paired, flips, tasks, None if ended else pool(paired, suite), looked)


def _named(subject: Subject | None, candidate: Deployment, baseline: Deployment) -> Subject:
    """Return the names that were given, filled up with those of the deployments."""
    scheme = " ".join(candidate.declared) or "unquantized"
    subject = subject or Subject(candidate.model, scheme)
    return subject if subject.baseline else subject._replace(baseline=baseline.model)


def _flip_rate(tasks: tuple[TaskVerdict, ...]) -> float | None:
    shares = [t for t in tasks if t.scale is Scale.SHARE]
    num_items = sum(t.num_items for t in shares)
    num_flips = sum(t.num_lost + t.num_won for t in shares)
    return num_flips / num_items if num_items else None


def _decide_each(
    paired: tuple[TaskPairs, ...],
    suite: Suite,
    flips: Mapping[str, Flips],
    surely: Mapping[str, float],
) -> tuple[TaskVerdict, ...]:
    claims = examine_claims(paired, suite)
    return tuple(
        decide(
            task,
            suite,
            claim=claims.get(task.spec.name),
            rerun_flip_rate=flips[name].rate if (name := task.spec.name) in flips else None,
            no_go_confidence=surely[name],
        )
        for task in paired
    )


def _against(
    tasks: tuple[TaskVerdict, ...], pooled: PooledTest | None, conditions: Conditions
) -> dict[ReasonCode, Decision]:
    """Return every reason against GO, with what it decides."""
    critical = [t for t in tasks if t.tier is Tier.CRITICAL]
    found: dict[ReasonCode, Decision] = {
        t.reason: t.decision for t in critical if t.decision is not Decision.GO
    }
    if conditions.missing_evidence is MissingEvidence.INCONCLUSIVE:
        found |= {gap.reason: Decision.INCONCLUSIVE for gap in conditions.gaps}
    if not critical:
        found[ReasonCode.SCORE_MISSING] = Decision.INCONCLUSIVE
    if conditions.coverage and conditions.coverage.too_many:
        found[ReasonCode.LOW_COVERAGE] = Decision.INCONCLUSIVE
    if not conditions.verified:
        found[ReasonCode.VERIFY_SKIPPED] = Decision.INCONCLUSIVE
    if not_exercised(conditions.deployment, conditions.smoke):
        found[ReasonCode.NUMERICS_NOT_EXERCISED] = Decision.INCONCLUSIVE
    if pooled and pooled.decision is not Decision.GO:
        found[ReasonCode.POOLED_ALARM] = pooled.decision
    found = {**decisions_of(conditions.objections), **found}
    return found | {finding.reason: Decision.NO_GO for finding in faults(conditions.deployment)}


class _Ruling(NamedTuple):
    decision: Decision
    reasons: tuple[ReasonCode, ...]
    summary: str


def _rule(
    tasks: tuple[TaskVerdict, ...],
    pooled: PooledTest | None,
    conditions: Conditions,
) -> _Ruling:
    found = _against(tasks, pooled, conditions)
    reasons = _in_order(found, pooled, conditions)
    decision = found.get(reasons[0], Decision.GO)
    said = evidence(reasons[0], tasks, pooled, conditions)
    return _Ruling(decision, reasons, f"{decision.value}: {said}.")


def _in_order(
    found: Mapping[ReasonCode, Decision], pooled: PooledTest | None, conditions: Conditions
) -> tuple[ReasonCode, ...]:
    """Return the reasons, the one that decides first; a GO says so, and what it passes over."""
    ranked = sorted(found, key=lambda r: (SEVERITY.index(found[r]), _PRECEDENCE.index(r)))
    alarm = (ReasonCode.POOLED_ALARM,) if pooled is not None and pooled.alarm else ()
    warnings = (*alarm, *warnings_of(conditions.objections), *reasons_of(conditions.gaps))
    return tuple(ranked) or (ReasonCode.NON_INFERIOR, *warnings)
