"""Start, continue, conclude and read runs: whatever happens, the report says what is known."""

import dataclasses
import re
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from harness.arms import DEPLOYMENT_FILE
from harness.artifacts import (
    Decision,
    Deployment,
    DeploymentsTrial,
    Failure,
    MissingEvidence,
    QuantPlan,
    Recipe,
    RunRecord,
    Scorecard,
    Trial,
    Verdict,
    digest_of,
    load,
    made_from,
    save,
)
from harness.baselines import versions
from harness.errors import ExitCode, HarnessError, ReasonCode, RejectedError
from harness.evidence import CHECKPOINT, changes_since_judged, folder_of, ingredients
from harness.garbage import settled
from harness.gate import exit_code_of, explain_waivers, reject
from harness.installed import note_surroundings
from harness.interrupts import ToldToEndError
from harness.judging import overrides_of
from harness.preflight import DeploymentsJob, GateJob, Job
from harness.report import REPORT_FILES, write_pending, write_report
from harness.rundir import (
    RunDirectory,
    Stage,
    find_noun,
    naming_refusals,
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

AnyJob = TypeVar("AnyJob", Job, GateJob, DeploymentsJob)
PLAN_FILE = "plan.json"
FAILURE_FILE = "failure.json"
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME = 100
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
    changed: tuple[str, ...]
    """What is not as it was judged any more; then the decision does not hold."""
    stages: tuple[StageStatus, ...]


def run_job(
    job: AnyJob,
    *,
    into: Path | None = None,
    fresh: bool = False,
    work: Callable[[AnyJob, RunDirectory], object],
) -> tuple[Path, RunRecord]:
    """Do `work` in the job's run directory, and write the reports however it ends.

    What an earlier run said is taken away before anything else, and reports that say so stand in
    its place: whatever becomes of this run, its own ending or none is what lies there.

    Raises:
        RunDirectoryError: the directory is in use, or holds something else.
    """
    path = into or default_directory(job)
    with open_run(path, job.recipe, fresh=fresh) as run, settled():
        _take_away_endings(path)
        if isinstance(job, Job):
            save(job.plan, path / PLAN_FILE)
        note_surroundings(job.recipe.engine, path)
        pending = RunRecord(
            recipe=job.recipe, versions=versions(), stage_seconds={}, failure=_NOT_ENDED
        )
        write_pending(pending, into=path)
        failure = None
        try:
            with naming_refusals():
                work(job, run)
        except RejectedError as error:
            _reject(error, job, run)
        except HarnessError as error:
            failure = _failure(error, run.current)
        except BaseException as error:
            _conclude(run, job.recipe, _ended_by(error, run.current))
            raise
        plan = job.plan if isinstance(job, Job) else None
        record = _conclude(run, job.recipe, failure, plan)
    return path, record


@contextmanager
def refusals_reported(path: Path | None) -> Iterator[None]:
    """Let a run that is refused before it starts leave no older ending in its directory.

    Args:
        path: the run directory, if one was named; one that holds no run is left alone, and so is
            one that another process works in.
    """
    try:
        yield
    except HarnessError as error:
        if path is not None:
            with suppress(HarnessError, OSError):
                _report_refusal(path, _failure(error, "preflight"))
        raise


def _report_refusal(path: Path, failure: Failure) -> None:
    recipe = read_recipe(path)
    with open_run(path, recipe) as run:
        _take_away_endings(path)
        _conclude(run, recipe, failure)


def _take_away_endings(path: Path) -> None:
    for name in (JUDGE.file, FAILURE_FILE, *REPORT_FILES):
        (path / name).unlink(missing_ok=True)


def _reject(error: RejectedError, job: Job | GateJob | DeploymentsJob, run: RunDirectory) -> None:
    """Write the verdict of a candidate that a stage refused."""
    if run.current not in _SERVED_STAGES:
        (run.path / DEPLOYMENT_FILE).unlink(missing_ok=True)
    verdict = reject(error, job.recipe, scheme=job.scheme)
    if error.checks:
        overrides = overrides_of(job.recipe, folder_of(run.path, job.recipe))
        verdict = explain_waivers(verdict, overrides, error.checks)
    made_from = ingredients(run, job.recipe, job.baseline.model_digest)
    verdict = dataclasses.replace(
        verdict,
        checkpoint_digest=made_from.get(CHECKPOINT),
        baseline=job.recipe.baseline or job.recipe.model,
        baseline_digest=job.baseline.model_digest,
    )
    run.keep(JUDGE, verdict, made_from)


def _conclude(
    run: RunDirectory, recipe: Trial, failure: Failure | None, plan: QuantPlan | None = None
) -> RunRecord:
    if failure is not None:
        save(failure, run.path / FAILURE_FILE)
    record = _record(run.path, recipe, run.nouns, failure, plan)
    write_report(record, into=run.path)
    return record


def read_run(path: Path) -> RunRecord:
    """Read what a run directory holds.

    A verdict on something that has changed since is no verdict any more: the record then says what
    has changed, as a failure.

    Raises:
        RunDirectoryError: it holds no run, or a file in it is damaged or was changed.
    """
    recipe = read_recipe(path)
    judged = made_from(path / JUDGE.file)
    found = {
        stage.name: find_noun(path, stage)
        for stage in stages_of(recipe, path)
        # What an earlier run left that this verdict does not stand on is no part of it.
        if judged is None or stage is JUDGE or stage.name in judged
    }
    nouns = {name: noun for name, noun in found.items() if noun is not None}
    failed = (path / FAILURE_FILE).exists()
    failure = load(Failure, path / FAILURE_FILE) if failed else None
    changed = changes_since_judged(path)
    if changed:
        nouns.pop(JUDGE.name, None)
        failure = _since(changed)
    return _record(path, recipe, nouns, failure)


def status_of(path: Path) -> RunStatus:
    """Say which stages of a run are finished and how it ended.

    Raises:
        RunDirectoryError: the directory holds no run, or a file in it was changed.
    """
    recipe = read_recipe(path)
    seconds = read_times(path)
    stages = tuple(
        StageStatus(
            stage=stage.name,
            finished=find_noun(path, stage) is not None,
            seconds=seconds.get(stage.name),
        )
        for stage in stages_of(recipe, path)
    )
    failure, verdict = path / FAILURE_FILE, path / JUDGE.file
    ending = "unfinished"
    changed = changes_since_judged(path)
    if changed:
        ending = f"failed: {_since(changed).message}"
    elif failure.exists():
        ending = f"failed: {load(Failure, failure).message}"
    elif verdict.exists():
        ending = load(Verdict, verdict).title
    return RunStatus(
        recipe=recipe.name,
        model=recipe.model,
        running_process=process_in(path),
        ending=ending,
        changed=tuple(changed),
        stages=stages,
    )


def stages_of(recipe: Trial, path: Path) -> list[Stage[Any]]:
    """Return the stages of the run in `path`.

    A checkpoint that was made elsewhere skips the first; a suite without a smoke set has no smoke
    run, and one of the declared numerics is there only where kernels hid them.
    """
    stages = STAGES if isinstance(recipe, Recipe) else GATE_STAGES
    absent = set() if recipe.suite.smoke else {SMOKE.name}
    if isinstance(recipe, DeploymentsTrial) and recipe.checkpoint is None:
        absent.add(VERIFY.name)
    if not (path / SMOKE_DECLARED.file).exists():
        absent.add(SMOKE_DECLARED.name)
    return [stage for stage in stages if stage.name not in absent]


def default_directory(job: Job | GateJob | DeploymentsJob) -> Path:
    """Return `runs/<model>-<format>-<digest>`, the same for the same recipe and model."""
    engine = job.recipe.engine.identity()
    recipe = dataclasses.replace(
        job.recipe,
        skip_verify=False,
        engine=engine,
        baseline=None,
        waivers=(),
        missing_evidence=MissingEvidence.INCONCLUSIVE,
        suite=dataclasses.replace(job.recipe.suite, tasks_from=()),
    )
    if isinstance(job, Job):
        model, digest = job.recipe.model, digest_of(recipe, job.source.digest)
    elif isinstance(job, DeploymentsJob):
        model, digest = job.recipe.model, digest_of(recipe)
    else:
        model, digest = job.checkpoint.name, digest_of(recipe, job.checkpoint.digest)
    return Path("runs") / f"{plain_name(model)}-{job.recipe.name}-{digest[:8]}"


def plain_name(model: str) -> str:
    """Return the last part of a model's name or path, as a part of a folder's name."""
    name = _NO_NAME.sub("_", Path(model.rstrip("/")).name)[:_LONGEST_NAME]
    return name if name.strip(".") else "model"


def exit_code(record: RunRecord) -> ExitCode:
    """Return how the process ends: the failure's code, else the verdict's, else 0."""
    if record.failure is not None:
        return ExitCode(record.failure.exit_code)
    return ExitCode.GO if record.verdict is None else exit_code_of(record.verdict.decision)


def _record(
    path: Path,
    recipe: Recipe | Trial,
    nouns: Mapping[str, Any],
    failure: Failure | None,
    plan: QuantPlan | None = None,
) -> RunRecord:
    if plan is None and (path / PLAN_FILE).exists():
        plan = load(QuantPlan, path / PLAN_FILE)
    verdict: Verdict | None = nouns.get(JUDGE.name)
    may_deploy = failure is None and verdict is not None and verdict.decision is Decision.GO
    is_ours = may_deploy and not isinstance(recipe, DeploymentsTrial)
    line = serve_command(recipe.engine, folder_of(path, recipe)) if is_ours else None
    return RunRecord(
        recipe=recipe,
        versions=versions(),
        plan=plan,
        stats=nouns.get(CALIBRATE.name),
        checkpoint=nouns.get(EXPORT.name),
        integrity=nouns.get(VERIFY.name),
        smoke=nouns.get(SMOKE.name),
        smoke_declared=nouns.get(SMOKE_DECLARED.name),
        deployment=_deployment(path, nouns.get(CANDIDATE.name)),
        candidate=nouns.get(CANDIDATE.name),
        baseline=nouns.get(BASELINE.name),
        verdict=verdict,
        failure=failure,
        stage_seconds=read_times(path),
        serve_command=shlex.join(line) if line else None,
    )


def _deployment(path: Path, scored: Scorecard | None) -> Deployment | None:
    """Return the candidate's deployment: that of its scores, else the one that was refused."""
    if scored is not None:
        return scored.deployment
    file = path / DEPLOYMENT_FILE
    return load(Deployment, file) if file.exists() else None


_NOT_ENDED = Failure(
    stage="start",
    message="the run has not come to its end: it is at work, or was killed",
    reason_code=ReasonCode.INTERRUPTED,
    retryable=True,
    exit_code=ExitCode.STAGE_FAILED,
)


def _ended_by(error: BaseException, stage: str) -> Failure:
    """Return how a run failed that was interrupted, or met a bug."""
    if isinstance(error, Exception):
        return Failure(
            stage=stage,
            message=f"a bug in harness, {type(error).__name__}: {error}",
            reason_code=ReasonCode.INTERNAL_ERROR,
            retryable=False,
            exit_code=ExitCode.BUG,
        )
    number = error.number if isinstance(error, ToldToEndError) else signal.SIGINT
    return Failure(
        stage=stage,
        message=f"interrupted by {number.name}",
        reason_code=ReasonCode.INTERRUPTED,
        retryable=True,
        exit_code=128 + number,
    )


def _since(changed: list[str]) -> Failure:
    """Return the failure of a run whose verdict is about something else than what lies there."""
    return Failure(
        stage=JUDGE.name,
        message=f"changed since it was judged: {'; '.join(changed)}",
        reason_code=ReasonCode.EVIDENCE_CHANGED,
        retryable=True,
        exit_code=ExitCode.USAGE,
    )


def _failure(error: HarnessError, stage: str) -> Failure:
    return Failure(
        stage=stage,
        message=str(error),
        reason_code=error.reason,
        retryable=error.retryable,
        exit_code=error.exit_code,
    )
