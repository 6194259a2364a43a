"""What a waiver does to a verdict, and what it can never do."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import pytest

from harness.artifacts import (
    Arm,
    Check,
    Decision,
    Deployment,
    Finding,
    Measure,
    Severity,
    SmokeReport,
    Verdict,
    Waiver,
)
from harness.errors import ReasonCode
from harness.gate import Overrides, explain_waivers, judge
from harness.gate.phrases import not_exercised
from harness.gate.waivers import waive_checks
from tests.gate.arms import arms_of, quantized
from tests.nouns import suite_of, task_spec

Arms = Callable[..., tuple[Arm, Arm]]
CHECKPOINT = "c" * 64
TODAY = date(2030, 6, 1)
FINDING = Finding(
    id="tensor-not-taken",
    severity=Severity.ERROR,
    message="1 of 9 tensors reached no parameter",
    reason=ReasonCode.LOAD_MISMATCH,
    incident="garbage",
)


def waiver(**changes: object) -> Waiver:
    made = Waiver(
        check=FINDING.id,
        checkpoint=CHECKPOINT,
        reason="an unused buffer",
        approver="release manager",
        expires=date(2030, 6, 1),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def with_finding(arm: Arm, deployment: Deployment) -> Arm:
    card = replace(arm.scorecard, deployment=replace(deployment, findings=(FINDING,)))
    return replace(arm, scorecard=card)


def judged(*waivers: Waiver, lost: int = 0, verified: bool = True) -> Verdict:
    """Judge a candidate whose deployment has one fault, and that lost so many of 300 items."""
    baseline, candidate = arms_of(lost=lost, won=0)
    candidate = with_finding(candidate, quantized())
    return judge(suite_of(), baseline, candidate, verified=verified, waivers=waivers)


def test_a_fault_without_a_waiver_is_no_go() -> None:
    verdict = judged()
    assert (verdict.decision, verdict.title) == (Decision.NO_GO, "NO-GO")
    assert verdict.waived == ()


def test_a_waived_fault_of_a_candidate_without_loss_is_go_with_waivers() -> None:
    verdict = judged(waiver())
    assert (verdict.decision, verdict.title) == (Decision.GO, "GO WITH WAIVERS")
    assert verdict.reason_codes == (ReasonCode.WAIVED, ReasonCode.NON_INFERIOR)
    assert verdict.summary.startswith("GO WITH WAIVERS: tensor-not-taken (release manager, until")
    assert "within the margin" in verdict.summary
    assert any("waived by release manager" in line for line in verdict.scope)


def test_a_waived_smoke_check_does_not_hide_what_the_smoke_run_computed() -> None:
    failed = Check(
        id="smoke-known-answers", passed=False, severity=Severity.ERROR, message="1 of 9 lost"
    )
    smoke = SmokeReport(
        smoke="canary",
        set_digest="",
        checkpoint_digest="c" * 64,
        baseline_digest="b" * 64,
        numerics="declared",
        declared=("inputs:nvfp4",),
        exercised=("inputs:nvfp4",),
        checks=(failed,),
        measures=(
            Measure(
                name="smoke-kld",
                baseline=None,
                candidate=None,
                difference=0.1,
                stderr=0.01,
                limit=0.2,
            ),
        ),
        answers=(),
    )
    hidden = replace(quantized(), declared=("inputs:nvfp4",), exercised=())
    assert not_exercised(hidden, smoke) == ("inputs:nvfp4",)
    waived = waive_checks(smoke, (waiver(check=failed.id),))
    assert not_exercised(hidden, waived) == ()
    assert waive_checks(smoke, (waiver(check="smoke-nll"),)) == smoke


def test_a_loss_is_no_go_whatever_was_waived() -> None:
    verdict = judged(waiver(), lost=90)
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes[0] is ReasonCode.TASK_INFERIOR
    assert ReasonCode.WAIVED not in verdict.reason_codes
    assert verdict.waived[0].check == FINDING.id


def test_a_run_without_verification_stays_undecided() -> None:
    verdict = judged(waiver(), verified=False)
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason_codes[0] is ReasonCode.VERIFY_SKIPPED


def test_missing_scores_stay_missing() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    more = suite_of(task_spec(), task_spec(name="never_ran"))
    verdict = judge(more, baseline, candidate, verified=True, waivers=(waiver(),))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason_codes[0] is ReasonCode.SCORE_MISSING


@pytest.mark.parametrize(
    ("change", "applies"),
    [
        ({}, True),
        ({"expires": date(2030, 5, 31)}, False),
        ({"expires": date(2030, 6, 2)}, True),
        ({"checkpoint": "d" * 64}, False),
    ],
)
def test_a_waiver_holds_for_one_checkpoint_and_until_its_day(
    change: dict[str, object], *, applies: bool
) -> None:
    overrides = Overrides((waiver(**change),), CHECKPOINT, TODAY)
    assert overrides.checks == ({FINDING.id} if applies else frozenset())
    assert bool(overrides.used([FINDING.id])) == applies
    assert overrides.used(["another-check"]) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "an unused buffer"),
        ({"expires": date(2030, 5, 31)}, "does not apply: it has expired"),
        ({"checkpoint": "d" * 64}, "is for checkpoint dddddddddddd, this is cccccccccccc"),
        ({"check": "scales-finite"}, "was not used: the check did not fail, or was not run"),
    ],
)
def test_every_waiver_that_was_given_is_spoken_of(change: dict[str, object], words: str) -> None:
    overrides = Overrides((waiver(**change),), CHECKPOINT, TODAY)
    verdict = explain_waivers(judged(), overrides, [FINDING.id])
    assert words in verdict.scope[-1]
    assert verdict.checkpoint_digest == CHECKPOINT
    assert verdict.failed_checks == (() if words == "an unused buffer" else (FINDING.id,))


def test_several_waivers_are_all_named() -> None:
    verdict = judged(waiver(), waiver(check="scales-finite", approver="somebody else"))
    assert [w.check for w in verdict.waived] == [FINDING.id, "scales-finite"]
    assert "scales-finite (somebody else, until 2030-06-01)" in verdict.summary
