"""What a smoke run of the declared numerics does to a verdict, and what it cannot do."""

import dataclasses

import pytest

from harness.artifacts import Check, Decision, Measure, Severity, SmokeReport, Verdict
from harness.errors import ReasonCode
from harness.gate import judge
from tests.gate.arms import arms_of, quantized
from tests.nouns import suite_of

PARTS = ("weights:nvfp4", "inputs:nvfp4")
KLD = Measure(
    name="smoke-kld", baseline=None, candidate=None, difference=0.01, stderr=0.001, limit=0.2
)
PASSED = SmokeReport(
    smoke="general",
    set_digest="5" * 64,
    checkpoint_digest="c" * 64,
    baseline_digest="b" * 64,
    numerics="declared",
    declared=PARTS,
    exercised=PARTS,
    checks=(Check(id="smoke-kld", passed=True, severity=Severity.ERROR, message="0.01"),),
    measures=(KLD,),
    answers=(),
)
FAILED = dataclasses.replace(PASSED, checks=(dataclasses.replace(PASSED.checks[0], passed=False),))


def judged(smoke: SmokeReport | None) -> Verdict:
    baseline, candidate = arms_of(lost=0, won=0)
    hidden = quantized(exercised=PARTS[:1])
    card = dataclasses.replace(candidate.scorecard, deployment=hidden)
    arm = dataclasses.replace(candidate, scorecard=card)
    return judge(suite_of(), baseline, arm, verified=True, smoke=smoke)


def test_hidden_numerics_that_were_smoked_are_go_and_the_scope_says_which() -> None:
    verdict = judged(PASSED)
    assert verdict.decision is Decision.GO
    assert "declared and not scored, smoked in emulation alone: inputs:nvfp4" in verdict.scope
    assert "arithmetic computed: weights:nvfp4" in verdict.scope
    assert "smoke general on declared numerics: 1 of 1 checks passed" in verdict.scope


@pytest.mark.parametrize(
    "smoke",
    [
        None,
        FAILED,
        dataclasses.replace(PASSED, exercised=PARTS[:1]),
        dataclasses.replace(PASSED, measures=()),
    ],
    ids=["no smoke", "failed", "not emulated", "not compared"],
)
def test_hidden_numerics_are_inconclusive_without_a_smoke_run_that_passed(
    smoke: SmokeReport | None,
) -> None:
    verdict = judged(smoke)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert ReasonCode.NUMERICS_NOT_EXERCISED in verdict.reason_codes
    assert "declared but not computed: inputs:nvfp4" in verdict.scope
