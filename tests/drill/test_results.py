"""What counts as caught, what the drill ends with, and the tables."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from harness.artifacts import Decision, EngineSpec, Failure, RunRecord, Trial, Verdict
from harness.drill import FAULTS, FORMATS, DrillReport, DrillSetting, text
from harness.drill.attempt import judged
from harness.drill.catalogue import find_format
from harness.drill.defenses import Defense
from harness.drill.fault import Kind, RunFault
from harness.drill.making import exchanged
from harness.drill.result import Attempt, Correct, Drilled
from harness.drill.table import junit_xml, markdown
from harness.errors import ExitCode, ReasonCode
from harness.recipe import load_suite

ENGINE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")


def record(
    decision: Decision | None = None, *reasons: ReasonCode, failure: ReasonCode | None = None
) -> RunRecord:
    verdict = None
    if decision is not None:
        verdict = Verdict(
            decision=decision,
            reason_codes=reasons,
            summary=f"{decision}: because",
            model="canary",
            scheme="NVFP4",
            suite="drill",
            tasks=(),
            flips=(),
            flip_rate=None,
            pooled_difference=None,
            scope=(),
        )
    failed = None
    if failure is not None:
        failed = Failure(
            stage="export", message="broken", reason_code=failure, retryable=True, exit_code=3
        )
    trial = Trial(
        name="gate",
        model="canary",
        revision=None,
        engine=ENGINE,
        suite=load_suite("drill"),
        skip_verify=False,
    )
    return RunRecord(recipe=trial, versions={}, verdict=verdict, failure=failed, stage_seconds={})


def caught(stage: str, ended: RunRecord, off: Defense | None = None) -> Defense | None:
    return judged(off, ended, stage, 1.0).caught_by


def test_a_no_go_is_caught_by_the_stage_that_it_ended_in() -> None:
    ended = record(Decision.NO_GO, ReasonCode.INTEGRITY_FAILED)
    assert caught("verify", ended) is Defense.VERIFY
    assert caught("judge", record(Decision.NO_GO, ReasonCode.TASK_INFERIOR)) is Defense.SCORE
    assert caught("score candidate", record(failure=ReasonCode.SCALE_MISSING)) is Defense.SERVE
    assert caught("export", record(failure=ReasonCode.READ_BACK_MISMATCH)) is Defense.EXPORT


def test_go_is_not_caught() -> None:
    assert caught("judge", record(Decision.GO, ReasonCode.NON_INFERIOR)) is None


def test_that_verification_was_skipped_says_nothing_of_the_fault() -> None:
    skipped = record(Decision.INCONCLUSIVE, ReasonCode.VERIFY_SKIPPED)
    assert caught("judge", skipped, Defense.VERIFY) is None
    both = record(Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE, ReasonCode.VERIFY_SKIPPED)
    assert caught("judge", both, Defense.VERIFY) is Defense.SCORE
    assert judged(Defense.VERIFY, both, "judge", 1.0).evidence == (ReasonCode.NOT_ENOUGH_EVIDENCE,)


@pytest.mark.parametrize("reason", [ReasonCode.DISK_FULL, ReasonCode.OUT_OF_MEMORY])
def test_what_the_machine_lacks_catches_no_fault(reason: ReasonCode) -> None:
    assert caught("export", record(failure=reason)) is None


def attempt(caught_by: Defense | None, decision: Decision | None, **changes: object) -> Attempt:
    code = {Decision.GO: ExitCode.GO, Decision.NO_GO: ExitCode.NO_GO, None: ExitCode.STAGE_FAILED}
    made = Attempt(
        off=None,
        caught_by=caught_by,
        evidence=("experts-complete", "scales-finite", "index-matches-shards"),
        decision=decision,
        exit_code=code[decision],
        message="why | how",
        seconds=0.5,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]  # checked at run time


def drilled(first: Attempt, second: Attempt | None = None) -> Drilled:
    return Drilled(
        fault="some-fault",
        incident="https://github.com/vllm-project/vllm/issues/45212",
        what="it is wrong",
        kind=Kind.FILE,
        format="nvfp4",
        first=first,
        second=second,
        folder="f",
    )


def correct(decision: Decision | None, code: ExitCode) -> Correct:
    return Correct(
        format="nvfp4", decision=decision, exit_code=code, message="m", seconds=5.0, folder="f"
    )


GOOD = correct(Decision.GO, ExitCode.GO)
CAUGHT = drilled(attempt(Defense.VERIFY, Decision.NO_GO), attempt(Defense.SERVE, None))
MISSED = drilled(attempt(None, Decision.GO, evidence=()))


def report(*parts: Correct | Drilled) -> DrillReport:
    return DrillReport(
        engine="reference",
        suite="drill",
        correct=tuple(part for part in parts if isinstance(part, Correct)),
        drilled=tuple(part for part in parts if isinstance(part, Drilled)),
        finished=True,
    )


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((GOOD, CAUGHT), 0),
        ((GOOD, CAUGHT, MISSED), 4),
        ((correct(Decision.NO_GO, ExitCode.NO_GO), CAUGHT), 4),
        ((correct(Decision.INCONCLUSIVE, ExitCode.INCONCLUSIVE), CAUGHT), 5),
        ((correct(None, ExitCode.STAGE_FAILED), MISSED), 3),
        ((GOOD, drilled(attempt(None, None))), 3),
        ((GOOD, drilled(CAUGHT.first, attempt(None, Decision.GO))), 4),
        ((GOOD, drilled(CAUGHT.first, attempt(None, None))), 0),
        ((GOOD, MISSED, drilled(CAUGHT.first, attempt(None, None, exit_code=ExitCode.BUG))), 1),
    ],
)
def test_the_drill_ends_with_the_worst_of_its_parts(
    parts: tuple[Correct | Drilled, ...], code: int
) -> None:
    assert report(*parts).exit_code == code


def test_the_tables_show_both_stages_the_time_and_what_was_missed() -> None:
    shown = report(GOOD, CAUGHT, MISSED)
    for table in (text(shown), markdown(shown)):
        for words in ("verify", "experts-complete, scales-finite, 1 more", "0.5 s (10%)"):
            assert words in table
        assert "NOT CAUGHT: some-fault" in table
        assert "NOTHING (GO)" in table
    assert "[vllm #45212](https://github.com/vllm-project/vllm/issues/45212)" in markdown(shown)


def test_junit_has_a_failure_for_each_missed_fault_and_bad_correct_run() -> None:
    bad = correct(Decision.NO_GO, ExitCode.NO_GO)
    root = ET.fromstring(junit_xml(report(GOOD, bad, CAUGHT, MISSED)))  # noqa: S314 - our own
    assert [suite.get("failures") for suite in root] == ["1", "1"]
    assert len(root.findall(".//failure")) == 2


def test_an_exchanged_function_is_back_afterwards_whatever_happened() -> None:
    place = SimpleNamespace(function=1)

    def fail() -> None:
        with exchanged(place, "function", 2):
            assert place.function == 2
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert place.function == 1


def test_every_fault_names_an_incident_a_known_format_and_its_own_name() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))
    for fault in FAULTS:
        assert fault.incident.startswith("https://github.com/")
        assert find_format(fault.format) in FORMATS
        assert len(fault.what.splitlines()) == 1


@pytest.mark.parametrize(
    "fault", [f for f in FAULTS if isinstance(f, RunFault)], ids=lambda fault: fault.name
)
def test_what_a_fault_of_the_making_types_is_a_request(fault: RunFault, tmp_path: Path) -> None:
    setting = DrillSetting(folder=tmp_path, suite="drill", engine="reference")
    request = setting.request(find_format(fault.format), **fault.options(tmp_path))
    assert request.model == "canary"
