"""Compare both arms' probes: every question is one check with its own id and numbers.

Pure: probes go in, a report comes out. A check that could not be run is a warning that has not
passed. Only a number that is shown to lie beyond its limit is an error, so that neither noise nor
an answer that the baseline never gave ends a run.
"""

from harness.artifacts import Check, Probe, SmokeReport, SmokeSet
from harness.errors import ReasonCode, RejectedError
from harness.smoke.answers import side_by_side
from harness.smoke.checks_answers import check_answers
from harness.smoke.checks_readings import check_readings
from harness.smoke.checks_surface import check_surface
from harness.smoke.finding import SmokeFinding, not_run

NO_BASELINE = "smoke-baseline"


def refuse_failed(report: SmokeReport, *, waived: frozenset[str] = frozenset()) -> None:
    """Refuse a candidate that failed a check which no waiver answers for.

    Raises:
        RejectedError: with the first such check; the rest is in the report.
    """
    failed = [check for check in report.errors if check.id not in waived]
    if failed:
        lost = sum(side.lost for side in report.answers)
        message = (
            f"the smoke run of the {report.numerics} numerics failed "
            f"{len(failed)} of {len(report.checks)} checks, first {failed[0].id}: "
            f"{failed[0].message}; {lost} known answers were lost"
        )
        checks = tuple(check.id for check in report.errors)
        raise RejectedError(message, reason=ReasonCode.SMOKE_FAILED, checks=checks)


def compare(
    prompts: SmokeSet, baseline: Probe | None, candidate: Probe, *, numerics: str
) -> SmokeReport:
    """Compare a candidate's answers to the smoke set with its baseline's.

    Args:
        prompts: what both were asked.
        baseline: the unquantized model's answers; None where it has none to this set.
        candidate: the quantized model's.
        numerics: which arithmetic of the candidate was looked at.
    """
    findings: list[SmokeFinding] = []
    if baseline is None or baseline.set_digest != prompts.digest:
        findings.append(not_run(NO_BASELINE, f"the baseline has no answers to '{prompts.name}'"))
        baseline = None
    else:
        findings += check_readings(baseline, candidate)
        findings += check_answers(prompts, baseline, candidate)
        findings += check_surface(prompts, baseline, candidate)
    checks: list[Check] = [finding.check for finding in findings]
    return SmokeReport(
        smoke=prompts.name,
        set_digest=prompts.digest,
        checkpoint_digest=candidate.deployment.checkpoint_digest,
        baseline_digest=baseline.deployment.checkpoint_digest if baseline else None,
        numerics=numerics,
        declared=candidate.deployment.declared,
        exercised=candidate.deployment.exercised,
        checks=tuple(checks),
        measures=tuple(finding.measure for finding in findings if finding.measure is not None),
        answers=side_by_side(prompts, baseline, candidate) if baseline else (),
    )
