"""The whole run: calibrate, quantize, export, verify, serve, smoke, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digest of what it was made from. A stage whose digest is unchanged is not run
again, so typing a command again continues where it stopped.
"""

import dataclasses
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
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
    failed_findings,
    keep_baseline,
    measure_baseline,
    read_probe,
    smoke_candidate,
)
from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    IntegrityReport,
    Probe,
    Recipe,
    Scorecard,
    SmokeReport,
    SmokeSet,
    ThinExperts,
    Trial,
    Verdict,
    digest_of,
    thin_experts,
)
from harness.baselines import ScoredArm, inputs_of, read_rerun, versions
from harness.calibrate import calibrate, data_digest, read_stats, write_stats
from harness.errors import EngineError, PrerequisiteError
from harness.export import export
from harness.gate import Overrides, Subject, explain_waivers, judge
from harness.models import Source, digest_folder
from harness.preflight import GateJob, Job
from harness.quantize import quantize
from harness.rundir import RunDirectory, Stage, is_finished
from harness.score import read_arm
from harness.smoke import refuse_failed
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
SMOKE = Stage(name="smoke", file="smoke.json", noun=SmokeReport)
SMOKE_DECLARED = Stage(name="smoke declared", file="smoke_declared.json", noun=SmokeReport)
CANDIDATE = Stage(name="score candidate", file="scorecard.json", noun=Scorecard)
BASELINE = Stage(name="score baseline", file="baseline/scorecard.json", noun=Scorecard)
JUDGE = Stage(name="judge", file="verdict.json", noun=Verdict)
GATE_STAGES = (VERIFY, SMOKE, SMOKE_DECLARED, CANDIDATE, BASELINE, JUDGE)
STAGES = (CALIBRATE, EXPORT, *GATE_STAGES)


_log = logging.getLogger("harness.run")


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
        waived = _waived(job.recipe, folder)
        check_files(folder, job.checkpoint.digest, run, waived=waived)
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
        waived = _waived(recipe, folder)
        check_files(folder, checkpoint.digest, run, waived=waived, source=source.path)
    return checkpoint


def check_files(
    folder: Path,
    digest: str,
    run: RunDirectory,
    *,
    waived: frozenset[str] = frozenset(),
    source: Path | None = None,
) -> IntegrityReport:
    """Verify a checkpoint's files; an error in them that is not waived ends the run.

    With the `source` that it was made from, each tensor is compared with what it came from. A
    checkpoint that was made elsewhere may have been trained on since, so nothing is assumed of it.
    """
    integrity = run.stage(
        VERIFY,
        key=digest_of(__version__, digest, _state_of(folder), str(source or "")),
        make=lambda: verify(folder, source=source),
    )
    refuse_errors(integrity, waived=waived)
    return integrity


def compare(what: Compared, run: RunDirectory) -> Verdict:
    """Look at the candidate, score both arms, at once where GPUs are to spare, and judge."""
    trial, engine, suite = what.trial, what.trial.engine, what.trial.suite
    how = digest_of(suite.digest, engine.identity(), versions())
    folder, baseline = what.folder, what.baseline
    candidate_gpus, baseline_gpus = assign_gpus(engine)
    key = digest_of(baseline.digest, how)
    order: BaselineOrder | None = None
    if isinstance(baseline, Source):
        inputs = inputs_of(baseline, engine, suite)
        order = BaselineOrder(engine, baseline.path, suite, inputs, candidate_gpus)
    else:
        run.stage(BASELINE, key=key, make=lambda: keep_baseline(baseline.path, run.path))
    beside: AbstractContextManager[Callable[[], bool] | None] = nullcontext()
    if baseline_gpus and order is not None and not is_finished(run.path, BASELINE, key):
        order = order._replace(gpus=baseline_gpus)
        beside = baseline_beside(order)
    waived = _waived(trial, folder)
    candidate_order = CandidateOrder(engine, folder, suite, run.path, candidate_gpus, waived)
    state = digest_of(_state_of(folder), how)
    with beside as is_beside, Candidate(candidate_order) as candidate:
        if suite.smoke is not None:
            known = _known_probe(run, key, suite.smoke)
            answers = SmokeBaseline(suite.smoke, known, order, is_beside)
            smoke_key = digest_of(state, suite.smoke.digest, key)
            _smoke(run, candidate_order, candidate, answers, key=smoke_key)
        run.stage(CANDIDATE, key=state, make=candidate.score)
    if order is not None:
        run.stage(BASELINE, key=key, make=lambda: keep_baseline(measure_baseline(order), run.path))
    return run.stage(JUDGE, key=digest_of(what.digest, trial), make=lambda: _judge_arms(what, run))


def _known_probe(run: RunDirectory, key: str, prompts: SmokeSet) -> Probe | None:
    """Return the baseline's answers that the run directory itself holds."""
    return (
        read_probe(run.path / "baseline", prompts) if is_finished(run.path, BASELINE, key) else None
    )


def _smoke(
    run: RunDirectory,
    order: CandidateOrder,
    candidate: Candidate,
    baseline: SmokeBaseline,
    *,
    key: str,
) -> None:
    """Compare a few answers of both arms; where kernels hide declared numerics, on those too."""
    report = run.stage(SMOKE, key=key, make=lambda: smoke_candidate(candidate, baseline))
    refuse_failed(report, waived=order.waived)
    if not report.hidden or not report.passed or order.engine.numerics == "declared":
        return
    candidate.stop()
    engine = dataclasses.replace(order.engine, numerics="declared")
    emulated = order._replace(engine=engine, into=run.path / "declared")
    try:
        with Candidate(emulated) as emulation:
            report = run.stage(
                SMOKE_DECLARED,
                key=digest_of(key, engine.identity()),
                make=lambda: smoke_candidate(emulation, baseline),
            )
    except (EngineError, PrerequisiteError) as error:
        _log.warning("smoke: the declared numerics cannot be emulated: %s", error)
        return
    refuse_failed(report, waived=order.waived)


def _judge_arms(what: Compared, run: RunDirectory) -> Verdict:
    trial, candidate = what.trial, read_arm(run.path)
    overrides = overrides_of(trial, what.folder)
    integrity: IntegrityReport | None = run.nouns.get(VERIFY.name)
    smoke: SmokeReport | None = run.nouns.get(SMOKE_DECLARED.name) or run.nouns.get(SMOKE.name)
    checks = failed_findings(candidate.scorecard.deployment)
    checks += tuple(check.id for check in smoke.errors) if smoke else ()
    failed = tuple(c.id for c in integrity.errors) + checks if integrity else checks
    verdict = judge(
        trial.suite,
        read_arm(run.path / "baseline"),
        candidate,
        verified=not trial.skip_verify,
        subject=what.subject,
        rerun=read_rerun(run.path / "baseline"),
        smoke=smoke,
        coverage=_coverage(trial, run),
        waivers=overrides.used(failed),
    )
    return explain_waivers(verdict, overrides, failed)


def _coverage(trial: Trial, run: RunDirectory) -> ThinExperts | None:
    """Return which experts calibration showed too little, where this run calibrated."""
    stats: CalibrationStats | None = run.nouns.get(CALIBRATE.name)
    if stats is None or not isinstance(trial, Recipe):
        return None
    return thin_experts(stats.coverage, trial.calibration.coverage)


def overrides_of(trial: Trial, folder: Path) -> Overrides:
    """Return what the waivers that were given mean for the checkpoint in `folder`, today."""
    return Overrides(trial.waivers, digest_folder(folder), datetime.now(UTC).date())


def _waived(trial: Trial, folder: Path) -> frozenset[str]:
    return overrides_of(trial, folder).checks if trial.waivers else frozenset()


def _state_of(folder: Path) -> list[tuple[str, int, int]]:
    """Return names, sizes and times of a folder's files: it changes when one is touched."""
    stats = ((path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file())
    return [(path.name, stat.st_size, stat.st_mtime_ns) for path, stat in stats]
