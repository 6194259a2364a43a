"""A run's reports are its own: whatever becomes of it, no older ending is left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import evidence
from harness.artifacts import Decision, Verdict, save
from harness.errors import ModelError, ReasonCode, RejectedError, RunDirectoryError, StageError
from harness.gate import reject
from harness.preflight import Job, preflight
from harness.recipe import Request
from harness.rundir import RunDirectory
from harness.runs import read_run, refusals_reported, run_job, status_of
from harness.stages import JUDGE

REFUSAL = ModelError("'x' is no model folder")
Work = Callable[[Job, RunDirectory], object]


@pytest.fixture(scope="module")
def job() -> Job:
    return preflight(Request(model="canary", qformat="nvfp4"), scored=False)


@pytest.fixture
def path(job: Job, tmp_path: Path) -> Path:
    """A run directory with a GO in it, and a checkpoint of one file."""
    path = tmp_path / "run"
    run_job(job, into=path, work=judge_it)
    assert status_of(path).ending == "GO"
    return path


def judge_it(job: Job, run: RunDirectory) -> None:
    """Give a GO on whatever lies there."""
    (run.path / "checkpoint").mkdir(exist_ok=True)
    (run.path / "checkpoint" / "config.json").write_text("{}")
    error = RejectedError("made up", reason=ReasonCode.SMOKE_FAILED)
    refused = reject(error, job.recipe, scheme="NVFP4")
    values = {**_fields(refused), "decision": Decision.GO, "reason_codes": ()}
    verdict = Verdict(**values)  # type: ignore[arg-type]  # the fields of another verdict
    run.stage(JUDGE, made_from=evidence.ingredients(run, job.recipe), make=lambda: verdict)


def _fields(verdict: Verdict) -> dict[str, object]:
    return {name: getattr(verdict, name) for name in verdict.__dataclass_fields__}


def failing(error: BaseException) -> Work:
    def work(job: Job, run: RunDirectory) -> None:
        del job, run
        raise error

    return work


def told(path: Path) -> tuple[bool, str, str]:
    """Return whether a verdict lies there, and what JUnit and the failure say."""
    failure = path / "failure.json"
    reason = json.loads(failure.read_bytes())["reason_code"] if failure.exists() else ""
    junit = (path / "junit.xml").read_text(encoding="utf-8")
    kind = "error" if "<error" in junit else "failure" if "<failure" in junit else "green"
    return (path / "verdict.json").exists(), kind, reason


def test_a_go_is_green(path: Path) -> None:
    assert told(path) == (True, "green", "")


@pytest.mark.parametrize(
    ("error", "raised", "reason"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted"),
        (SystemExit(143), SystemExit, "interrupted"),
        (ZeroDivisionError("x"), ZeroDivisionError, "internal-error"),
    ],
)
def test_a_run_that_is_interrupted_or_meets_a_bug_reports_that(
    job: Job, path: Path, error: BaseException, raised: type[BaseException], reason: str
) -> None:
    with pytest.raises(raised):
        run_job(job, into=path, work=failing(error))
    assert told(path) == (False, "error", reason)
    assert status_of(path).ending.startswith("failed: ")
    assert "GO" not in (path / "report.md").read_text(encoding="utf-8").split("\n", 1)[0]


def test_a_run_that_fails_reports_that(job: Job, path: Path) -> None:
    run_job(job, into=path, work=failing(StageError("no more", reason=ReasonCode.OUT_OF_MEMORY)))
    assert told(path) == (False, "error", "out-of-memory")


def test_a_run_at_work_or_killed_is_not_green(job: Job, path: Path) -> None:
    seen = []

    def look(job: Job, run: RunDirectory) -> None:
        del job
        seen.append((told(run.path), (run.path / "report.html").exists()))

    run_job(job, into=path, work=look)
    assert seen == [((False, "error", ""), False)]


def test_a_run_that_is_refused_before_it_starts_takes_the_old_ending_away(path: Path) -> None:
    with pytest.raises(ModelError), refusals_reported(path):
        raise REFUSAL
    assert told(path) == (False, "error", "bad-model")
    assert "'x' is no model folder" in status_of(path).ending


def test_a_refusal_leaves_a_folder_alone_that_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ModelError), refusals_reported(tmp_path):
        raise REFUSAL
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_refusal_does_not_touch_a_run_that_another_process_works_in(job: Job, path: Path) -> None:
    def meanwhile(job: Job, run: RunDirectory) -> None:
        judge_it(job, run)
        with pytest.raises(ModelError), refusals_reported(run.path):
            raise REFUSAL
        assert (run.path / "verdict.json").exists()

    run_job(job, into=path, work=meanwhile)
    assert status_of(path).ending == "GO"


def test_weights_that_changed_since_are_said_in_place_of_the_go(path: Path) -> None:
    assert read_run(path).serve_command is not None
    (path / "checkpoint" / "config.json").write_text("[]")
    status, record = status_of(path), read_run(path)
    assert status.ending.startswith("failed: changed since it was judged: the checkpoint")
    assert len(status.changed) == 1
    assert record.failure is not None
    assert (record.failure.reason_code, record.failure.exit_code) == ("evidence-changed", 2)
    assert (record.verdict, record.serve_command) == (None, None)


def test_weights_that_are_gone_are_said_too(path: Path) -> None:
    shutil.rmtree(path / "checkpoint")
    assert "its digest is gone" in status_of(path).ending


def test_an_edited_verdict_is_not_read(path: Path) -> None:
    text = (path / "verdict.json").read_text()
    (path / "verdict.json").write_text(text.replace("made up", "all is well"))
    with pytest.raises(RunDirectoryError, match="was changed after harness wrote it"):
        status_of(path)


def test_a_verdict_of_another_run_is_not_read(path: Path, job: Job, tmp_path: Path) -> None:
    def other(job: Job, run: RunDirectory) -> None:
        judge_it(job, run)
        verdict: Verdict = run.nouns[JUDGE.name]
        changed = Verdict(**{**_fields(verdict), "summary": "another"})  # type: ignore[arg-type]
        run.keep(JUDGE, changed, evidence.ingredients(run, job.recipe))

    run_job(job, into=tmp_path / "other", work=other)
    save(read_run(tmp_path / "other").verdict, path / "verdict.json")
    with pytest.raises(RunDirectoryError, match="is not the one that this run wrote"):
        status_of(path)
