"""The whole run: calibrate, quantize, export, verify, serve, smoke, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digest of what it was made from. A stage whose digest is unchanged is not run
again, so typing a command again continues where it stopped.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from harness import __version__
from harness.arms import (
    BaselineOrder,
    Candidate,
    CandidateOrder,
    SmokeBaseline,
    assign_gpus,
    baseline_beside,
    keep_baseline,
    measure_baseline,
    read_probe,
    smoke,
)
from harness.artifacts import Checkpoint, IntegrityReport, Trial, Verdict, digest_of
from harness.baselines import ScoredArm, inputs_of, versions
from harness.calibrate import data_digest
from harness.export import Draft
from harness.gate import Subject
from harness.judging import judge_run, waived_checks
from harness.making import calibrate_and_write, complete
from harness.models import Source
from harness.preflight import GateJob, Job
from harness.rundir import RunDirectory, is_finished
from harness.stages import BASELINE, CALIBRATE, CANDIDATE, EXPORT, JUDGE, VERIFY
from harness.verify import engine_of, refuse_errors, verify


class Compared(NamedTuple):
    """A checkpoint and what it is compared with."""

    trial: Trial
    folder: Path
    baseline: Source | ScoredArm
    digest: str
    """Of the checkpoint's files."""
    subject: Subject


def release_gate(job: Job, run: RunDirectory) -> Verdict:
    """May this quantized model be released? The whole run on one screen."""
    checkpoint = make_checkpoint(job, run)
    folder = run.path / "checkpoint"
    subject = Subject(job.recipe.model, job.plan.scheme)
    return compare(Compared(job.recipe, folder, job.baseline, checkpoint.digest, subject), run)


def foreign_gate(job: GateJob, run: RunDirectory) -> Verdict:
    """The same for a checkpoint that was made elsewhere."""
    folder = job.checkpoint.path
    if not job.recipe.skip_verify:
        check_files(job.recipe, folder, job.checkpoint.digest, run)
    subject = Subject(job.recipe.model, job.scheme)
    return compare(Compared(job.recipe, folder, job.baseline, job.checkpoint.digest, subject), run)


def make_checkpoint(job: Job, run: RunDirectory) -> Checkpoint:
    """Calibrate, quantize, export and verify."""
    recipe, source, plan = job.recipe, job.source, job.plan
    spec = recipe.calibration
    folder = run.path / "checkpoint"
    with Draft(source, plan, into=folder) as draft:
        stats = run.stage(
            CALIBRATE,
            key=digest_of(versions(), plan.digest, spec, data_digest(spec), recipe.device),
            make=lambda: calibrate_and_write(job, draft),
        )
        checkpoint = run.stage(
            EXPORT,
            key=digest_of(__version__, plan.digest, stats),
            make=lambda: complete(job, draft, stats),
        )
    if not recipe.skip_verify:
        check_files(recipe, folder, checkpoint.digest, run, source=source)
    return checkpoint


def check_files(
    trial: Trial, folder: Path, digest: str, run: RunDirectory, *, source: Source | None = None
) -> IntegrityReport:
    """Verify a checkpoint's files; an error in them that is not waived ends the run.

    Its names are looked up as the version of vLLM that serves it spells them. With the `source`
    that it was made from, each tensor is compared with what it came from. A checkpoint that was
    made elsewhere may have been trained on since, so nothing is assumed of it.
    """
    engine, against = engine_of(trial.engine), source.digest if source else ""
    integrity = run.stage(
        VERIFY,
        key=digest_of(__version__, digest, _state_of(folder), against, engine or ""),
        make=lambda: verify(folder, source=source.path if source else None, engine=engine),
    )
    refuse_errors(integrity, waived=waived_checks(trial, folder))
    return integrity


def compare(what: Compared, run: RunDirectory) -> Verdict:
    """Look at the candidate, score both arms, at once where GPUs are to spare, and judge."""
    trial, folder, baseline = what.trial, what.folder, what.baseline
    engine, suite = trial.engine, trial.suite
    how = digest_of(suite.digest, engine.identity(), versions())
    theirs, ours = digest_of(baseline.digest, how), digest_of(_state_of(folder), how)
    gpus, baseline_gpus = assign_gpus(engine)
    waived = waived_checks(trial, folder)
    candidate_order = CandidateOrder(engine, folder, suite, run.path, gpus, waived)
    order: BaselineOrder | None = None
    if isinstance(baseline, Source):
        inputs = inputs_of(baseline, engine, suite)
        order = BaselineOrder(engine, baseline.path, suite, inputs, baseline_gpus or gpus)
    else:
        run.stage(BASELINE, key=theirs, make=lambda: keep_baseline(baseline.path, run.path))
    is_kept = is_finished(run.path, BASELINE, theirs)
    beside: AbstractContextManager[Callable[[], bool] | None] = nullcontext()
    if order is not None and baseline_gpus and not is_kept:
        beside = baseline_beside(order)
    with beside as is_beside, Candidate(candidate_order) as candidate:
        if suite.smoke is not None:
            known = read_probe(run.path / "baseline", suite.smoke) if is_kept else None
            answers = SmokeBaseline(suite.smoke, known, order, is_beside)
            key = digest_of(ours, suite.smoke.digest, theirs)
            smoke(run, candidate_order, candidate, answers, key=key)
        run.stage(CANDIDATE, key=ours, make=candidate.score)
    if order is not None:
        scored = order
        run.stage(
            BASELINE, key=theirs, make=lambda: keep_baseline(measure_baseline(scored), run.path)
        )
    judged = digest_of(what.digest, trial)
    return run.stage(JUDGE, key=judged, make=lambda: judge_run(trial, folder, what.subject, run))


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a folder's files: it changes when one is touched."""
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
