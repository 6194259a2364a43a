"""Start, continue, conclude and read runs: whatever happens, the report says what is known."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.arms import DEPLOYMENT_FILE
from harness.artifacts import (
    Deployment,
    Failure,
    QuantPlan,
    Recipe,
    RunRecord,
    Scorecard,
    Trial,
    Verdict,
    digest_of,
    load,
    save,
)
from harness.baselines import versions
from harness.errors import ExitCode, HarnessError, RejectedError
from harness.garbage import settled
from harness.gate import exit_code_of, explain_waivers, reject
from harness.judging import overrides_of
from harness.preflight import GateJob, Job
from harness.report import write_report
from harness.rundir import (
    RunDirectory,
    Stage,
    is_finished,
    open_run,
    process_in,
    read_recipe,
    read_times,
)
from harness.serve import serve_command
from harness.stages import (
    BASELINE,
    CALIBRATE,
    CANDIDATE,
    EXPORT,
    GATE_STAGES,
    JUDGE,
    SMOKE,
    SMOKE_DECLARED,
    STAGES,
    VERIFY,
)

AnyJob = TypeVar("AnyJob", Job, GateJob)
PLAN_FILE = "plan.json"
FAILURE_FILE = "failure.json"
_SERVED_STAGES = {stage.name for stage in (SMOKE, SMOKE_DECLARED, CANDIDATE)}
"""Those that leave the candidate's deployment in the run directory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageStatus:
    """One stage of a run."""

    stage: str
    finished: bool
    seconds: float | None
    """Wall-clock time the last time that it ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """How far a run is."""

    recipe: str
    model: str
    running_process: int | None
    """Process that works in the directory now."""
    ending: str
    """`unfinished`, a decision, or `failed: ...`."""
    stages: tuple[StageStatus, ...]


def run_job(
    job: AnyJob,
    *,
    into: Path | None = None,
    fresh: bool = False,
    work: Callable[[AnyJob, RunDirectory], object],
) -> tuple[Path, RunRecord]:
    """Do `work` in the job's run directory, and write the report however it ends.

    Raises:
        RunDirectoryError: the directory is in use, or holds something else.
    """
    path = into or default_directory(job)
    with open_run(path, job.recipe, fresh=fresh) as run, settled():
        for stale in (JUDGE.file, FAILURE_FILE):
            (path / stale).unlink(missing_ok=True)
        if isinstance(job, Job):
            save(job.plan, path / PLAN_FILE)
        failure = None
        try:
            work(job, run)
        except RejectedError as error:
            if run.current not in _SERVED_STAGES:
                (path / DEPLOYMENT_FILE).unlink(missing_ok=True)
            verdict = reject(error, job.recipe, scheme=job.scheme)
            if error.checks:
                overrides = overrides_of(job.recipe, _folder_of(path, job.recipe))
                verdict = explain_waivers(verdict, overrides, error.checks)
            save(verdict, path / JUDGE.file, made_from=digest_of(str(error)))
            run.nouns[JUDGE.name] = verdict
        except HarnessError as error:
            failure = _failure(error, run.current)
            save(failure, path / FAILURE_FILE)
        record = _record(path, job.recipe, run.nouns, failure)
        write_report(record, into=path)
    return path, record


def read_run(path: Path) -> RunRecord:
    """Read what a run directory holds.

    Raises:
        RunDirectoryError: it holds no run, or a file in it is damaged.
    """
    recipe = read_recipe(path)
    nouns = {
        stage.name: stage.read(path / stage.file)
        if stage.read
        else load(stage.noun, path / stage.file)
        for stage in stages_of(recipe, path)
        if is_finished(path, stage)
    }
    failed = (path / FAILURE_FILE).exists()
    failure = load(Failure, path / FAILURE_FILE) if failed else None
    return _record(path, recipe, nouns, failure)


def status_of(path: Path) -> RunStatus:
    """Say which stages of a run are finished and how it ended.

    Raises:
        RunDirectoryError: the directory holds no run.
    """
    recipe = read_recipe(path)
    seconds = read_times(path)
    stages = tuple(
        StageStatus(
            stage=stage.name,
            finished=is_finished(path, stage),
            seconds=seconds.get(stage.name),
        )
        for stage in stages_of(recipe, path)
    )
    failure, verdict = path / FAILURE_FILE, path / JUDGE.file
    ending = "unfinished"
    if failure.exists():
        ending = f"failed: {load(Failure, failure).message}"
    elif verdict.exists():
        ending = load(Verdict, verdict).title
    return RunStatus(
        recipe=recipe.name,
        model=recipe.model,
        running_process=process_in(path),
        ending=ending,
        stages=stages,
    )


def stages_of(recipe: Trial, path: Path) -> list[Stage[Any]]:
    """Return the stages of the run in `path`.

    A checkpoint that was made elsewhere skips the first; a suite without a smoke set has no smoke
    run, and one of the declared numerics is there only where kernels hid them.
    """
    stages = STAGES if isinstance(recipe, Recipe) else GATE_STAGES
    absent = set() if recipe.suite.smoke else {SMOKE.name}
    if not (path / SMOKE_DECLARED.file).exists():
        absent.add(SMOKE_DECLARED.name)
    return [stage for stage in stages if stage.name not in absent]


def default_directory(job: Job | GateJob) -> Path:
    """Return `runs/<model>-<format>-<digest>`, the same for the same recipe and model."""
    engine = job.recipe.engine.identity()
    recipe = dataclasses.replace(
        job.recipe, skip_verify=False, engine=engine, baseline=None, waivers=()
    )
    if isinstance(job, Job):
        model, digest = job.recipe.model, digest_of(recipe, job.source.digest)
    else:
        model, digest = job.checkpoint.name, digest_of(recipe, job.checkpoint.digest)
    return Path("runs") / f"{Path(model.rstrip('/')).name}-{job.recipe.name}-{digest[:8]}"


def exit_code(record: RunRecord) -> ExitCode:
    """Return how the process ends: the failure's code, else the verdict's, else 0."""
    if record.failure is not None:
        return ExitCode(record.failure.exit_code)
    return ExitCode.GO if record.verdict is None else exit_code_of(record.verdict.decision)


def _record(
    path: Path, recipe: Recipe | Trial, nouns: Mapping[str, Any], failure: Failure | None
) -> RunRecord:
    made = nouns.get(EXPORT.name)
    folder = _folder_of(path, recipe)
    can_deploy = made is not None or recipe.checkpoint is not None
    return RunRecord(
        recipe=recipe,
        versions=versions(),
        plan=load(QuantPlan, path / PLAN_FILE) if (path / PLAN_FILE).exists() else None,
        stats=nouns.get(CALIBRATE.name),
        checkpoint=made,
        integrity=nouns.get(VERIFY.name),
        smoke=nouns.get(SMOKE.name),
        smoke_declared=nouns.get(SMOKE_DECLARED.name),
        deployment=_deployment(path, nouns.get(CANDIDATE.name)),
        candidate=nouns.get(CANDIDATE.name),
        baseline=nouns.get(BASELINE.name),
        verdict=nouns.get(JUDGE.name),
        failure=failure,
        stage_seconds=read_times(path),
        serve_command=shlex.join(serve_command(recipe.engine, folder)) if can_deploy else None,
    )


def _folder_of(path: Path, recipe: Trial) -> Path:
    return Path(recipe.checkpoint) if recipe.checkpoint else path / "checkpoint"


def _deployment(path: Path, scored: Scorecard | None) -> Deployment | None:
    """Return the candidate's deployment: that of its scores, else the one that was refused."""
    if scored is not None:
        return scored.deployment
    file = path / DEPLOYMENT_FILE
    return load(Deployment, file) if file.exists() else None


def _failure(error: HarnessError, stage: str) -> Failure:
    return Failure(
        stage=stage,
        message=str(error),
        reason_code=error.reason,
        retryable=error.retryable,
        exit_code=error.exit_code,
    )
