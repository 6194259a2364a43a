"""The whole run, top to bottom: calibrate, quantize, export, verify, serve, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digest of what it was made from. A stage whose digest is unchanged is not run
again, so typing a command again continues where it stopped.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from harness import __version__
from harness.arms import (
    assign_gpus,
    baseline_beside,
    keep_baseline,
    measure_baseline,
    measure_candidate,
)
from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    IntegrityReport,
    Scorecard,
    Trial,
    Verdict,
    digest_of,
)
from harness.calibrate import calibrate, data_digest, read_stats, write_stats
from harness.export import export
from harness.gate import Subject, judge
from harness.models import Source
from harness.preflight import GateJob, Job, ScoredArm
from harness.quantize import quantize
from harness.rundir import RunDirectory, Stage, is_finished
from harness.score import read_arm
from harness.verify import refuse_errors, verify

CALIBRATE = Stage(
    name="calibrate",
    file="calibration.json",
    noun=CalibrationStats,
    outputs=("calibration.safetensors",),
    read=read_stats,
    write=write_stats,
)
EXPORT = Stage(name="export", file="checkpoint.json", noun=Checkpoint, outputs=("checkpoint",))
VERIFY = Stage(name="verify", file="integrity.json", noun=IntegrityReport)
CANDIDATE = Stage(name="score candidate", file="scorecard.json", noun=Scorecard)
BASELINE = Stage(name="score baseline", file="baseline/scorecard.json", noun=Scorecard)
JUDGE = Stage(name="judge", file="verdict.json", noun=Verdict)
GATE_STAGES = (VERIFY, CANDIDATE, BASELINE, JUDGE)
STAGES = (CALIBRATE, EXPORT, *GATE_STAGES)


class Compared(NamedTuple):
    """A checkpoint and what it is compared with."""

    trial: Trial
    folder: Path
    baseline: Source | ScoredArm
    digest: str
    """Of the checkpoint's files."""
    subject: Subject


_PACKAGES = ("torch", "transformers", "lm_eval", "safetensors", "tokenizers")


def release_gate(job: Job, run: RunDirectory) -> Verdict:
    """May this quantized model be released? The whole run on one screen."""
    checkpoint = make_checkpoint(job, run)
    folder = run.path / "checkpoint"
    subject = Subject(job.recipe.model, job.plan.scheme)
    return compare(Compared(job.recipe, folder, job.source, checkpoint.digest, subject), run)


def foreign_gate(job: GateJob, run: RunDirectory) -> Verdict:
    """The same for a checkpoint that was made elsewhere."""
    folder = job.checkpoint.path
    if not job.recipe.skip_verify:
        check_files(folder, job.checkpoint.digest, run)
    subject = Subject(job.recipe.model, job.scheme)
    return compare(Compared(job.recipe, folder, job.baseline, job.checkpoint.digest, subject), run)


def make_checkpoint(job: Job, run: RunDirectory) -> Checkpoint:
    """Calibrate, quantize, export and verify."""
    recipe, source, plan = job.recipe, job.source, job.plan
    spec = recipe.calibration
    stats = run.stage(
        CALIBRATE,
        key=digest_of(__version__, plan.digest, spec, data_digest(spec), recipe.device),
        make=lambda: calibrate(recipe, source, job.inventory, plan),
    )
    folder = run.path / "checkpoint"
    checkpoint = run.stage(
        EXPORT,
        key=digest_of(__version__, plan.digest, stats),
        make=lambda: export(
            source, plan, quantize(source, plan, stats, device=recipe.device), into=folder
        ),
    )
    if not recipe.skip_verify:
        check_files(folder, checkpoint.digest, run)
    return checkpoint


def check_files(folder: Path, digest: str, run: RunDirectory) -> IntegrityReport:
    """Verify a checkpoint's files; an error in them ends the run."""
    integrity = run.stage(
        VERIFY,
        key=digest_of(__version__, digest, _state_of(folder)),
        make=lambda: verify(folder),
    )
    refuse_errors(integrity)
    return integrity


def compare(what: Compared, run: RunDirectory) -> Verdict:
    """Score both arms, at once where GPUs are to spare, and judge."""
    trial, engine, suite = what.trial, what.trial.engine, what.trial.suite
    how = digest_of(suite.digest, engine.identity(), versions())
    folder, baseline = what.folder, what.baseline
    candidate_gpus, baseline_gpus = assign_gpus(engine)
    key = digest_of(baseline.digest, how)
    beside: AbstractContextManager[None] = nullcontext()
    if baseline_gpus and isinstance(baseline, Source) and not is_finished(run.path, BASELINE, key):
        beside = baseline_beside(engine, baseline.path, suite, key=key, gpus=baseline_gpus)
    with beside:
        run.stage(
            CANDIDATE,
            key=digest_of(_state_of(folder), how),
            make=lambda: measure_candidate(
                engine, folder, suite, into=run.path, gpus=candidate_gpus
            ),
        )
    run.stage(
        BASELINE,
        key=key,
        make=lambda: keep_baseline(
            measure_baseline(engine, baseline.path, suite, key=key, gpus=candidate_gpus)
            if isinstance(baseline, Source)
            else baseline.path,
            run.path,
        ),
    )
    return run.stage(
        JUDGE,
        key=digest_of(what.digest, trial),
        make=lambda: judge(
            suite,
            read_arm(run.path / "baseline"),
            read_arm(run.path),
            verified=not trial.skip_verify,
            subject=what.subject,
        ),
    )


def versions() -> Mapping[str, str]:
    """Return the versions of harness and of the packages that change numbers."""
    return {"harness": __version__} | {name: version(name) for name in _PACKAGES}


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a folder's files: it changes when one is touched."""
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
