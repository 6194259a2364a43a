"""The whole run: calibrate, quantize, export, verify, serve, smoke, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digests of what it was made from. A stage of which none has changed is not run
again, so typing a command again continues where it stopped.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import __version__
from harness.arms import (
    BaselineOrder,
    Candidate,
    CandidateOrder,
    Gpus,
    SmokeBaseline,
    assign_gpus,
    keep_baseline,
    measure_baseline,
    measured_in_background,
    read_probe,
    smoke,
)
from harness.artifacts import Checkpoint, IntegrityReport, Scorecard, Trial, Verdict, digest_of
from harness.baselines import ScoredArm, inputs_of, versions
from harness.calibrate import data_digest
from harness.engines import engine_of
from harness.evidence import check_evidence, ingredients
from harness.export import CheckpointWriter
from harness.gate import Subject
from harness.judging import judge_run, waived_checks
from harness.making import calibrate_and_write, complete
from harness.models import MANIFEST_FILE, Source, sha256_of, unchanged
from harness.preflight import GateJob, Job
from harness.rundir import RunDirectory, find_noun
from harness.stages import (
    BASELINE,
    BASELINE_FOLDER,
    CALIBRATE,
    CANDIDATE,
    CHECKPOINT_FOLDER,
    EXPORT,
    JUDGE,
    VERIFY,
)
from harness.verify import refuse_errors, verify


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
    folder = run.path / CHECKPOINT_FOLDER
    subject = Subject(job.recipe.model, job.plan.scheme, job.recipe.baseline or job.recipe.model)
    return compare(Compared(job.recipe, folder, job.baseline, checkpoint.digest, subject), run)


def foreign_gate(job: GateJob, run: RunDirectory) -> Verdict:
    """The same for a checkpoint that was made elsewhere."""
    folder = job.checkpoint.path
    if not job.recipe.skip_verify:
        check_files(job.recipe, folder, job.checkpoint.digest, run)
    subject = Subject(job.recipe.model, job.scheme, job.recipe.model)
    return compare(Compared(job.recipe, folder, job.baseline, job.checkpoint.digest, subject), run)


def make_checkpoint(job: Job, run: RunDirectory) -> Checkpoint:
    """Calibrate, quantize, export and verify."""
    recipe, source, plan = job.recipe, job.source, job.plan
    spec = recipe.calibration
    folder = run.path / CHECKPOINT_FOLDER
    planned = {"model": source.digest, "plan": plan.digest}
    reading = unchanged(source.path, source.digest, meanwhile="quantized")
    with reading, CheckpointWriter(source, plan, into=folder) as writer:
        stats = run.stage(
            CALIBRATE,
            made_from={
                **planned,
                "calibration settings": digest_of(spec, recipe.device),
                "calibration data": data_digest(spec),
                "versions": digest_of(versions()),
            },
            make=lambda: calibrate_and_write(job, writer),
        )
        checkpoint = run.stage(
            EXPORT,
            made_from={
                **planned,
                CALIBRATE.name: run.digests[CALIBRATE.name],
                "versions": digest_of(__version__),
            },
            make=lambda: complete(job, writer, stats),
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

    Raises:
        EvidenceError: the folder holds other files than `digest` says.
    """
    engine = engine_of(trial.engine)
    manifest = folder / MANIFEST_FILE
    with unchanged(folder, digest, meanwhile="verified"):
        integrity = run.stage(
            VERIFY,
            made_from={
                "checkpoint": digest,
                "manifest": sha256_of(manifest) if manifest.is_file() else "none",
                "model": source.digest if source else "none",
                "rules": digest_of(__version__, engine or ""),
            },
            make=lambda: verify(folder, source=source.path if source else None, engine=engine),
        )
    refuse_errors(integrity, waived=waived_checks(trial, folder))
    return integrity


def compare(what: Compared, run: RunDirectory) -> Verdict:
    """Look at the candidate, score both arms, at once where GPUs are to spare, and judge."""
    trial, folder, baseline = what.trial, what.folder, what.baseline
    engine, suite = trial.engine, trial.suite
    how = {
        "suite": suite.digest,
        "engine": digest_of(engine.identity()),
        "versions": digest_of(versions()),
    }
    theirs, ours = {"baseline": baseline.digest, **how}, {"checkpoint": what.digest, **how}
    arm = run.path / BASELINE_FOLDER
    gpus, baseline_gpus = assign_gpus(engine)
    waived = waived_checks(trial, folder)
    candidate_order = CandidateOrder(engine, folder, what.digest, suite, run.path, gpus, waived)
    order = _order_of(what, baseline_gpus or gpus)
    if isinstance(baseline, ScoredArm):
        given = partial(keep_baseline, baseline.path, arm, digest=baseline.digest)
        run.stage(BASELINE, made_from=theirs, make=given)
    is_kept = find_noun(run.path, BASELINE, theirs) is not None
    measuring: AbstractContextManager[Callable[[], bool] | None] = nullcontext()
    if order is not None and baseline_gpus and not is_kept:
        measuring = measured_in_background(order)
    with measuring as still_measuring, Candidate(candidate_order) as candidate:
        if suite.smoke is not None:
            known = read_probe(arm, suite.smoke) if is_kept else None
            answers = SmokeBaseline(suite.smoke, known, order, still_measuring)
            asked = {**ours, "smoke set": suite.smoke.digest, "baseline": baseline.digest}
            smoke(run, candidate_order, candidate, answers, made_from=asked)
        run.stage(CANDIDATE, made_from=ours, make=candidate.score)
    if order is not None:
        measured = partial(_measure_and_keep, order, arm)
        run.stage(BASELINE, made_from=theirs, make=measured)
    check_evidence(run, folder, baseline.model_digest)
    return run.stage(
        JUDGE,
        made_from=ingredients(run, trial, baseline.model_digest),
        make=lambda: judge_run(trial, folder, what.subject, run),
    )


def _order_of(what: Compared, gpus: Gpus) -> BaselineOrder | None:
    """Return what is to be measured as the baseline; None where its scores were given."""
    if isinstance(what.baseline, ScoredArm):
        return None
    engine, suite = what.trial.engine, what.trial.suite
    inputs = inputs_of(what.baseline, engine, suite)
    return BaselineOrder(engine, what.baseline.path, suite, inputs, gpus)


def _measure_and_keep(order: BaselineOrder, arm: Path) -> Scorecard:
    return keep_baseline(measure_baseline(order), arm)
