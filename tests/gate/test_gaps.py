"""What a verdict says where an engine did not show what it loaded or computes."""

from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    Decision,
    Deployment,
    Gap,
    MissingEvidence,
    SmokeReport,
    Verdict,
)
from harness.errors import ReasonCode
from harness.gate import judge
from harness.gate.phrases import not_exercised
from tests.gate.arms import arms_of, quantized
from tests.gate.test_smoke import FAILED, PASSED
from tests.nouns import suite_of

LOAD = Gap(reason=ReasonCode.LOAD_NOT_RECONCILED, message="this vLLM has no `load_weights`")
KERNELS = Gap(
    reason=ReasonCode.KERNELS_UNKNOWN,
    message="this vLLM has no `RoutedExperts`",
    parts=("weights:nvfp4", "inputs:nvfp4"),
)


def served(arm: Arm, deployment: Deployment) -> Arm:
    return replace(arm, scorecard=replace(arm.scorecard, deployment=deployment))


def judged(
    *gaps: Gap, policy: MissingEvidence = MissingEvidence.INCONCLUSIVE, lost: int = 0
) -> Verdict:
    baseline, candidate = arms_of(lost=lost, won=0)
    exercised = () if any(gap.parts for gap in gaps) else quantized().exercised
    shown = quantized(not_observed=gaps, exercised=exercised)
    return judge(
        suite_of(), baseline, served(candidate, shown), verified=True, missing_evidence=policy
    )


@pytest.mark.parametrize("gap", [LOAD, KERNELS])
def test_a_candidate_without_loss_is_inconclusive_where_evidence_is_missing(gap: Gap) -> None:
    verdict = judged(gap)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason_codes == (gap.reason,)
    assert verdict.summary == f"INCONCLUSIVE: {gap.reason}: {gap.message}."


@pytest.mark.parametrize("gap", [LOAD, KERNELS])
def test_missing_evidence_may_end_go_where_the_run_says_so_and_is_named(gap: Gap) -> None:
    verdict = judged(gap, policy=MissingEvidence.GO)
    assert verdict.decision is Decision.GO
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR, gap.reason)
    assert verdict.summary.endswith(f"; not seen, as this run may: {gap.reason}.")
    assert f"not seen, {gap.reason}: {gap.message}" in verdict.scope


def test_parts_that_nobody_saw_computed_are_told_from_those_that_are_not() -> None:
    scope = judged(KERNELS).scope
    assert "declared, and not known to be computed: weights:nvfp4, inputs:nvfp4" in scope
    assert not any(line.startswith("declared but not computed") for line in scope)
    known = quantized(not_observed=(LOAD,), exercised=("weights:nvfp4",))
    assert not_exercised(known) == ("inputs:nvfp4",)


def test_a_loss_is_no_go_whatever_is_missing() -> None:
    verdict = judged(LOAD, policy=MissingEvidence.GO, lost=90)
    assert verdict.decision is Decision.NO_GO


def test_a_baseline_that_was_not_reconciled_is_missing_evidence_too() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    shown = replace(baseline.scorecard.deployment, not_observed=(LOAD, KERNELS))
    verdict = judge(suite_of(), served(baseline, shown), candidate, verified=True)
    assert verdict.reason_codes == (ReasonCode.LOAD_NOT_RECONCILED,)
    assert f"of the baseline, {LOAD.message}" in verdict.summary


def test_an_engine_that_showed_everything_is_judged_by_its_scores() -> None:
    assert judged().decision is Decision.GO


@pytest.mark.parametrize(
    ("smoke", "decision"), [(PASSED, Decision.GO), (FAILED, Decision.INCONCLUSIVE)]
)
def test_what_a_smoke_run_computed_need_not_be_known_of_the_kernels(
    smoke: SmokeReport, decision: Decision
) -> None:
    gap = replace(KERNELS, parts=("inputs:nvfp4",))
    baseline, candidate = arms_of(lost=0, won=0)
    shown = quantized(exercised=("weights:nvfp4",), not_observed=(gap,))
    verdict = judge(suite_of(), baseline, served(candidate, shown), verified=True, smoke=smoke)
    assert verdict.decision is decision
