"""What a waiver can name: checks that failed, and nothing that is missing."""

from dataclasses import replace
from datetime import date

import pytest

from harness import arms, shipped
from harness.artifacts import Finding, Severity, Waiver
from harness.errors import ReasonCode, RejectedError, WaiverError
from harness.preflight.waived import WAIVABLE, check_waivers
from harness.serve import FINDING_IDS
from harness.verify import verify
from tests.nouns import deployment

DEPLOYMENT = deployment(engine="vllm", version="0.25.0", device="cuda", dtype="bfloat16")


def fault(name: str) -> Finding:
    return Finding(
        id=name,
        severity=Severity.ERROR,
        message=f"{name} was seen",
        reason=ReasonCode.LOAD_MISMATCH,
        incident="garbage",
    )


def waiver(check: str) -> Waiver:
    day = date(2999, 12, 31)
    return Waiver(check=check, checkpoint="c" * 64, reason="r", approver="a", expires=day)


def test_a_waived_finding_does_not_end_a_run_and_another_one_does() -> None:
    faulty = replace(DEPLOYMENT, findings=(fault("tensor-not-taken"), fault("default-kv-scale")))
    both = frozenset({"tensor-not-taken", "default-kv-scale"})
    arms.refuse_findings(faulty, both)
    with pytest.raises(RejectedError, match="default-kv-scale was seen") as caught:
        arms.refuse_findings(faulty, frozenset({"tensor-not-taken"}))
    assert caught.value.checks == ("tensor-not-taken", "default-kv-scale")


def test_every_check_of_files_can_be_named() -> None:
    report = verify(shipped.canary() / "model")
    assert {check.id for check in report.checks} <= WAIVABLE


@pytest.mark.parametrize(
    "name",
    [
        "load-report-missing",
        "smoke-baseline",
        "smoke-requests",
        "smoke-log-probabilities",
        *(code.value for code in ReasonCode),
    ],
)
def test_what_is_missing_or_failed_can_not(name: str) -> None:
    assert name not in WAIVABLE
    with pytest.raises(WaiverError, match=f"'{name}' names no check"):
        check_waivers((waiver(name),))


def test_the_nearest_checks_are_named() -> None:
    assert "parameter-not-filled" in FINDING_IDS
    with pytest.raises(WaiverError, match="Nearest: parameter-not-filled"):
        check_waivers((waiver("parameters-not-filled"),))
