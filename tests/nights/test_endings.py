"""A cell's ending says whose failure it was, and nothing but a GO is green."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness import evidence
from harness.artifacts import CellEnding, Decision, Failure, Purpose, Verdict
from harness.errors import (
    BaselineError,
    EngineError,
    ExitCode,
    HarnessError,
    ModelError,
    ReasonCode,
    RejectedError,
    StageError,
)
from harness.gate import reject
from harness.nights import CellRun, row_of_run
from harness.nights.endings import ABOUT, About, of_failure
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.runs import refusals_reported, run_job
from harness.stages import BASELINE, CANDIDATE, JUDGE

RUN = CellRun(cell="a", night="2031-01-01", attempt=1, purpose=Purpose.REGULAR, exit_code=None)
REFUSAL = ModelError("'x' is no model folder")
Work = Callable[[Job, RunDirectory], object]


def failure(reason: ReasonCode, stage: str, exit_code: int = 3) -> Failure:
    return Failure(
        stage=stage, message="x", reason_code=reason, retryable=True, exit_code=exit_code
    )


def test_every_reason_is_about_something() -> None:
    assert ABOUT.keys() == set(ReasonCode)


@pytest.mark.parametrize("stage", [BASELINE.name, CANDIDATE.name, "preflight", "start"])
@pytest.mark.parametrize("exit_code", [1, 2, 3, 137])
def test_no_failure_of_any_reason_is_a_verdict(stage: str, exit_code: int) -> None:
    verdicts = {CellEnding.GO, CellEnding.NO_GO, CellEnding.INCONCLUSIVE}
    endings = {of_failure(failure(reason, stage, exit_code)) for reason in ReasonCode}
    assert not endings & verdicts


@pytest.mark.parametrize("stage", [BASELINE.name, CANDIDATE.name])
def test_what_the_machine_did_is_infrastructure_in_either_arm(stage: str) -> None:
    reasons = [reason for reason, about in ABOUT.items() if about is About.MACHINE]
    assert {of_failure(failure(reason, stage)) for reason in reasons} == {CellEnding.INFRA_FAILED}


def test_an_engine_that_fails_with_the_baseline_leaves_nothing_to_compare_with() -> None:
    for reason in (r for r, about in ABOUT.items() if about is About.ARM):
        assert of_failure(failure(reason, BASELINE.name)) is CellEnding.NO_BASELINE


def test_a_source_model_that_is_broken_fails_both_arms() -> None:
    broken = failure(ReasonCode.NON_FINITE_WEIGHT, "calibrate")
    assert of_failure(broken) is CellEnding.BOTH_ARMS_FAILED


@pytest.fixture(scope="module")
def job() -> Job:
    return preflight(Request(model="canary", qformat="nvfp4"), scored=False)


def judging(decision: Decision) -> Work:
    """Give a verdict on whatever lies there."""

    def judge(job: Job, run: RunDirectory) -> None:
        (run.path / "checkpoint").mkdir(exist_ok=True)
        (run.path / "checkpoint" / "config.json").write_text("{}")
        error = RejectedError("made up", reason=ReasonCode.SMOKE_FAILED)
        verdict: Verdict = replace(reject(error, job.recipe, scheme="NVFP4"), decision=decision)
        digests = evidence.ingredients(run, job.recipe)
        run.stage(JUDGE, made_from=digests, make=lambda: verdict)

    return judge


def failing(error: BaseException, stage: str = "start") -> Work:
    def work(job: Job, run: RunDirectory) -> None:
        del job
        run.current = stage
        raise error

    return work


def ending(path: Path, exit_code: int | None = None) -> CellEnding:
    return row_of_run(path, replace(RUN, exit_code=exit_code)).ending


@pytest.mark.parametrize("decision", [Decision.GO, Decision.NO_GO])
def test_a_verdict_is_the_ending(job: Job, tmp_path: Path, decision: Decision) -> None:
    run_job(job, into=tmp_path / "run", work=judging(decision))
    assert ending(tmp_path / "run").value == decision.value


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 5, 137, -9])
def test_a_go_that_its_process_does_not_say_is_not_green(
    job: Job, tmp_path: Path, exit_code: int
) -> None:
    run_job(job, into=tmp_path / "run", work=judging(Decision.GO))
    assert ending(tmp_path / "run", exit_code) is CellEnding.INFRA_FAILED


@pytest.mark.parametrize(
    ("error", "stage", "expected"),
    [
        (StageError("full", reason=ReasonCode.OUT_OF_MEMORY), BASELINE.name, "infra-failed"),
        (EngineError("died"), CANDIDATE.name, "infra-failed"),
        (EngineError("died"), BASELINE.name, "no-baseline"),
        (BaselineError("not there"), "start", "no-baseline"),
    ],
)
def test_a_run_that_failed_is_told_by_whose_failure_it_was(
    job: Job, tmp_path: Path, error: HarnessError, stage: str, expected: str
) -> None:
    run_job(job, into=tmp_path / "run", work=failing(error, stage))
    row = row_of_run(tmp_path / "run", replace(RUN, exit_code=3))
    assert (row.ending.value, row.message) == (expected, str(error))
    assert row.reason_codes == (error.reason.value,)


def test_a_run_that_was_killed_is_infrastructure(job: Job, tmp_path: Path) -> None:
    seen = []
    run_job(job, into=tmp_path / "run", work=lambda _, run: seen.append(ending(run.path, -9)))
    assert seen == [CellEnding.INFRA_FAILED]


def test_a_run_that_was_refused_did_not_run(job: Job, tmp_path: Path) -> None:
    run_job(job, into=tmp_path / "run", work=judging(Decision.GO))
    with pytest.raises(ModelError), refusals_reported(tmp_path / "run"):
        raise REFUSAL
    assert ending(tmp_path / "run", ExitCode.USAGE) is CellEnding.NOT_RUN


def test_a_verdict_on_a_checkpoint_that_changed_since_is_none(job: Job, tmp_path: Path) -> None:
    run_job(job, into=tmp_path / "run", work=judging(Decision.GO))
    (tmp_path / "run" / "checkpoint" / "config.json").write_text("{ }")
    assert ending(tmp_path / "run", 0) is CellEnding.INFRA_FAILED


def test_a_file_of_the_run_that_was_edited_is_infrastructure(job: Job, tmp_path: Path) -> None:
    run_job(job, into=tmp_path / "run", work=judging(Decision.NO_GO))
    file = tmp_path / "run" / "verdict.json"
    file.write_text(file.read_text(encoding="utf-8").replace("NO-GO", "GO"), encoding="utf-8")
    assert ending(tmp_path / "run", 0) is CellEnding.INFRA_FAILED


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [(None, "not-run"), (2, "not-run"), (0, "infra-failed"), (3, "infra-failed")],
)
def test_a_cell_without_a_run_directory_is_never_green(
    tmp_path: Path, exit_code: int | None, expected: str
) -> None:
    assert ending(tmp_path / "none", exit_code).value == expected


def test_a_run_gives_the_same_row_whenever_it_is_read(job: Job, tmp_path: Path) -> None:
    run_job(job, into=tmp_path / "run", work=judging(Decision.GO))
    first = row_of_run(tmp_path / "run", RUN, ledger=tmp_path)
    assert row_of_run(tmp_path / "run", RUN, ledger=tmp_path) == first
    assert (first.run_dir, first.digests["recipe"]) != ("", "")
    assert first.run_dir == "run"
