"""The whole run, top to bottom: calibrate, quantize, export, verify, serve, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digest of what it was made from. A stage whose digest is unchanged is not run
again, so typing a command again continues where it stopped.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from harness import __version__, baselines
from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    IntegrityReport,
    Scorecard,
    Verdict,
    digest_of,
)
from harness.calibrate import calibrate, data_digest, read_stats, write_stats
from harness.export import export
from harness.gate import Subject, judge
from harness.preflight import Job
from harness.quantize import quantize
from harness.rundir import RunDirectory, Stage
from harness.score import read_arm, score
from harness.serve import serve
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
STAGES = (CALIBRATE, EXPORT, VERIFY, CANDIDATE, BASELINE, JUDGE)

_PACKAGES = ("torch", "transformers", "lm_eval", "safetensors", "tokenizers")


def release_gate(job: Job, run: RunDirectory) -> Verdict:
    """May this quantized model be released? The whole run on one screen."""
    checkpoint = make_checkpoint(job, run)
    score_candidate(job, run)
    score_baseline(job, run)
    return run.stage(
        JUDGE,
        key=digest_of(checkpoint.digest, job.recipe),
        make=lambda: judge(
            job.recipe.suite,
            read_arm(run.path / "baseline"),
            read_arm(run.path),
            verified=not job.recipe.skip_verify,
            subject=Subject(job.recipe.model, job.plan.scheme),
        ),
    )


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
        integrity = run.stage(
            VERIFY,
            key=digest_of(__version__, checkpoint.digest, _state_of(folder)),
            make=lambda: verify(folder),
        )
        refuse_errors(integrity)
    return checkpoint


def score_candidate(job: Job, run: RunDirectory) -> Scorecard:
    """Serve the exported checkpoint and score it."""
    folder = run.path / "checkpoint"

    def make() -> Scorecard:
        with serve(job.recipe.engine, folder) as served:
            return score(served, job.recipe.suite, arm="candidate", into=run.path)

    key = digest_of(_state_of(folder), job.recipe.suite.digest, job.recipe.engine, versions())
    return run.stage(CANDIDATE, key=key, make=make)


def score_baseline(job: Job, run: RunDirectory) -> Scorecard:
    """Score the unquantized model, or find its scores from an earlier run."""
    suite, engine = job.recipe.suite, job.recipe.engine
    key = digest_of(job.source.digest, suite.digest, engine, versions())

    def make() -> Scorecard:
        with baselines.entry(key) as entry:
            if not (entry / "scorecard.json").exists():
                with serve(engine, job.source.path) as served:
                    score(served, suite, arm="baseline", into=entry)
            baselines.copy_into(entry, run.path / "baseline")
        return read_arm(run.path / "baseline").scorecard

    return run.stage(BASELINE, key=key, make=make)


def versions() -> Mapping[str, str]:
    """Return the versions of harness and of the packages that change numbers."""
    return {"harness": __version__} | {name: version(name) for name in _PACKAGES}


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a folder's files: it changes when one is touched."""
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
