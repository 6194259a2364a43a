"""The whole run: calibrate, quantize, export, verify, serve, smoke, score, judge, report.

Each stage is a room with one door; what a room returns is a frozen noun, kept in the run
directory with the digests of what it was made from. A stage of which none has changed is not run
again, so typing a command again continues where it stopped.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from harness import __version__
from harness.arms import (
    BaselineOrder,
    Candidate,
    CandidateOrder,
    Gpus,
    Measuring,
    SmokeBaseline,
    assign_gpus,
    begun_ahead,
    keep_baseline,
    read_probe,
    smoke,
)
from harness.artifacts import (
    Checkpoint,
    EngineSpec,
    IntegrityReport,
    MadeFrom,
    Scorecard,
    SizeVerdict,
    Trial,
    Verdict,
    digest_of,
)
from harness.baselines import ScoredArm, inputs_of, versions
from harness.calibrate import data_digest
from harness.engines import engine_of
from harness.errors import ReasonCode, RejectedError
from harness.evidence import check_evidence, ingredients
from harness.export import CheckpointWriter
from harness.gate import Subject, compare_sizes, refuse_not_reduced
from harness.judging import judge_run, waived_checks
from harness.making import calibrate_and_write, complete
from harness.models import MANIFEST_FILE, Source, sha256_of, stored_weights, unchanged
from harness.preflight import GateJob, Job, candidate_bytes, plan_arms
from harness.rundir import RunDirectory, find_noun
from harness.serve import Ahead
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
from harness.verify import ReadingAhead, refuse_errors, verify

_log = logging.getLogger("harness.run")


class Compared(NamedTuple):
    """A checkpoint and what it is compared with."""

    trial: Trial
    folder: Path
    digest: str
    """Of the checkpoint's files."""
    subject: Subject
    ahead: Ahead | None = None
    """What was begun of its server."""


class Origin(NamedTuple):
    """The model that a checkpoint is made from, or may be."""

    model: Source | ScoredArm | None
    is_certain: bool = True

    @property
    def digest(self) -> str:
        """Return what a comparison with it depends on."""
        return self.model.digest if isinstance(self.model, Source) else "none"

    def compared(self) -> Mapping[str, Path]:
        """Return its folder under the name that `verify` has for it; nothing without files."""
        if not isinstance(self.model, Source):
            return {}
        return {"source" if self.is_certain else "baseline": self.model.path}


class Looked(NamedTuple):
    """A checkpoint whose files are verified."""

    folder: Path
    digest: str
    """Of its files."""
    origin: Origin
    ahead: ReadingAhead | None = None
    """What has begun to read them."""


class ComparedWith(NamedTuple):
    """A baseline."""

    model: Source | ScoredArm
    made_from: MadeFrom
    """What its scores are made from."""
    measuring: Measuring | None
    """None where its scores were given."""
    is_kept: bool
    """Whether the run directory has them."""


def release_gate(job: Job, run: RunDirectory) -> Verdict:
    """May this quantized model be released? The whole run on one screen."""
    with (
        started_baseline(job, run) as baseline,
        begun_server(job, baseline, run) as ahead,
    ):
        checkpoint = make_checkpoint(leaving_room(job, baseline), run)
        folder = run.path / CHECKPOINT_FOLDER
        subject = Subject(
            job.recipe.model, job.plan.scheme, job.recipe.baseline or job.recipe.model
        )
        what = Compared(job.recipe, folder, checkpoint.digest, subject, ahead)
        return compare(what, baseline, run)


def foreign_gate(job: GateJob, run: RunDirectory, *, ahead: ReadingAhead | None = None) -> Verdict:
    """The same for a checkpoint that was made elsewhere; its files may be read `ahead`."""
    folder = job.checkpoint.path
    with (
        started_baseline(job, run) as baseline,
        begun_server(job, baseline, run) as begun,
    ):
        if not job.recipe.skip_verify:
            origin = Origin(job.baseline, is_certain=False)
            looked = Looked(folder, job.checkpoint.digest, origin, ahead)
            integrity = check_files(job.recipe, looked, run)
            waived = waived_checks(job.recipe, folder)
            refuse_files(integrity, size_of(integrity, job.baseline), waived)
        subject = Subject(job.recipe.model, job.scheme, job.recipe.model)
        what = Compared(job.recipe, folder, job.checkpoint.digest, subject, begun)
        return compare(what, baseline, run)


def make_checkpoint(job: Job, run: RunDirectory) -> Checkpoint:
    """Calibrate, quantize, export and verify."""
    recipe, source, plan = job.recipe, job.source, job.plan
    spec = recipe.calibration
    folder = run.path / CHECKPOINT_FOLDER
    planned = {"model": source.digest, "plan": plan.digest}
    reading = unchanged(source.path, source.digest, meanwhile="quantized")
    with ReadingAhead(source.path, written_here=True) as ahead:
        with reading, CheckpointWriter(source, plan, into=folder) as writer:
            if not recipe.skip_verify:
                writer.show(ahead)
            exported = {**planned, "versions": digest_of(__version__)}
            kept = {**exported, CALIBRATE.name: run.kept_digest(CALIBRATE)}
            if plan.algorithm.needs_inputs and not run.holds(EXPORT, made_from=kept):
                # Weights are made while their inputs are seen, which nothing records.
                run.forget(CALIBRATE)
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
                made_from={**exported, CALIBRATE.name: run.digests[CALIBRATE.name]},
                make=lambda: complete(job, writer, stats),
            )
        if not recipe.skip_verify:
            looked = Looked(folder, checkpoint.digest, Origin(source), ahead)
            integrity = check_files(recipe, looked, run)
            refuse_files(integrity, size_of(integrity, job.baseline), waived_checks(recipe, folder))
    return checkpoint


def check_files(trial: Trial, looked: Looked, run: RunDirectory) -> IntegrityReport:
    """Verify a checkpoint's files.

    Its names are looked up as the version of vLLM that serves it spells them. With the model that
    it was made from, each tensor is compared with what it came from. A checkpoint that was made
    elsewhere may have been trained on since: of that only what its own weights show is assumed.

    Raises:
        EvidenceError: the folder holds other files than its digest says.
    """
    folder, digest, origin, ahead = looked
    engine = engine_of(trial.engine)
    manifest = folder / MANIFEST_FILE
    with unchanged(folder, digest, meanwhile="verified"):
        report = run.stage(
            VERIFY,
            made_from={
                "checkpoint": digest,
                "manifest": sha256_of(manifest) if manifest.is_file() else "none",
                "model": origin.digest,
                "rules": digest_of(__version__, engine or ""),
            },
            make=lambda: verify(folder, **origin.compared(), engine=engine, before=ahead),
        )
    if ahead is not None:
        ahead.end()
    return report


def size_of(integrity: IntegrityReport, baseline: Source | ScoredArm | None) -> SizeVerdict | None:
    """Hold a checkpoint's size against the model that it is compared with, where that is known."""
    if isinstance(baseline, ScoredArm):
        return compare_sizes(integrity.size, baseline.scorecard.deployment.stored)
    return compare_sizes(integrity.size, stored_weights(baseline) if baseline else None)


def refuse_files(
    integrity: IntegrityReport, size: SizeVerdict | None, waived: frozenset[str]
) -> None:
    """End the run for an error in a checkpoint's files, or their size, that is not waived.

    Raises:
        RejectedError: there is one; where there are both, the files' come first.
    """
    try:
        refuse_errors(integrity, waived=waived)
    except RejectedError as error:
        if size is not None and not size.reduced:
            error.also = (ReasonCode.SIZE_NOT_REDUCED,)
        raise
    refuse_not_reduced(size, waived=waived)


@contextmanager
def started_baseline(job: Job | GateJob, run: RunDirectory) -> Iterator[ComparedWith]:
    """Begin to measure the baseline, where it has to be and fits, until the context ends."""
    trial, model = job.recipe, job.baseline
    theirs = {"baseline": model.digest, **asked_of(trial)}
    is_kept = find_noun(run.path, BASELINE, theirs) is not None
    if isinstance(model, ScoredArm):
        yield ComparedWith(model, theirs, None, is_kept)
        return
    together = plan_arms(job)
    gpus, own = assign_gpus(trial.engine)
    inputs = inputs_of(model, trial.engine, trial.suite)
    engine = dataclasses.replace(trial.engine, share=together.baseline_share)
    order = BaselineOrder(engine, model.path, trial.suite, inputs, own or gpus)
    with Measuring(order, together) as measuring:
        if not is_kept:
            _log.info("arms: %s", together.said())
        if not is_kept and together.while_made:
            measuring.begin()
        yield ComparedWith(model, theirs, measuring, is_kept)


@contextmanager
def begun_server(
    job: Job | GateJob, baseline: ComparedWith, run: RunDirectory
) -> Iterator[Ahead | None]:
    """Begin the candidate's server as far as it needs no checkpoint, if there will be one."""
    measuring = baseline.measuring
    if find_noun(run.path, CANDIDATE) is not None:
        yield None
        return
    will_share = measuring is not None and not baseline.is_kept and measuring.will_begin
    engine, gpus = _candidates_engine(job.recipe, measuring if will_share else None)
    with begun_ahead(engine, partial(candidate_bytes, job), records=run.path, gpus=gpus) as ahead:
        yield ahead


def leaving_room(job: Job, baseline: ComparedWith) -> Job:
    """Bound what calibration takes of a GPU where the baseline's server is there meanwhile."""
    measuring, memory = baseline.measuring, job.recipe.memory
    if measuring is None or not measuring.has_begun or memory.gpu_bytes is not None:
        return job
    memory = dataclasses.replace(memory, gpu_bytes=measuring.together.making_bytes)
    return dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, memory=memory))


def asked_of(trial: Trial) -> MadeFrom:
    """Return the digests of what decides the answers of both arms besides the model."""
    return {
        "suite": trial.suite.digest,
        "engine": digest_of(trial.engine.identity()),
        "versions": digest_of(versions(trial.suite)),
    }


def compare(what: Compared, baseline: ComparedWith, run: RunDirectory) -> Verdict:
    """Look at the candidate, score both arms, at once where they fit, and judge."""
    trial, folder, measuring = what.trial, what.folder, baseline.measuring
    ours = {"checkpoint": what.digest, **asked_of(trial)}
    if trial.end_early:
        ours["end early"] = digest_of(baseline.model.digest)
    if measuring is not None and not baseline.is_kept:
        measuring.begin()
    must_know = trial.end_early and not (measuring is not None and measuring.has_begun)
    if measuring is None or baseline.is_kept or measuring.comes_first or must_know:
        score_baseline(baseline, run)
    order = _candidate_order(what, measuring, run)
    with Candidate(order, measuring) as candidate:
        if trial.suite.smoke is not None:
            known = None
            if BASELINE.name in run.nouns:
                known = read_probe(run.path / BASELINE_FOLDER, trial.suite.smoke)
            answers = SmokeBaseline(trial.suite.smoke, known, measuring)
            digests = {"smoke set": trial.suite.smoke.digest, "baseline": baseline.model.digest}
            smoke(run, order, candidate, answers, made_from={**ours, **digests})
        run.stage(CANDIDATE, made_from=ours, make=candidate.score)
    if BASELINE.name not in run.nouns:
        score_baseline(baseline, run)
    check_evidence(run, folder, baseline.model.model_digest)
    return run.stage(
        JUDGE,
        made_from=ingredients(run, trial, baseline.model.model_digest),
        make=lambda: judge_run(trial, folder, what.subject, run),
    )


def _candidate_order(
    what: Compared, measuring: Measuring | None, run: RunDirectory
) -> CandidateOrder:
    trial, folder = what.trial, what.folder
    shares = measuring is not None and measuring.has_begun
    engine, gpus = _candidates_engine(trial, measuring if shares else None)
    waived = waived_checks(trial, folder)
    watched: tuple[Path, ...] = ()
    if trial.end_early:
        watched = run.path / BASELINE_FOLDER, *([measuring.folder] if measuring else [])
    return CandidateOrder(
        engine, folder, what.digest, trial.suite, run.path, gpus, waived, watched, what.ahead
    )


def _candidates_engine(trial: Trial, measuring: Measuring | None) -> tuple[EngineSpec, Gpus]:
    """Return what serves the candidate, and its GPUs.

    Args:
        trial: the run's.
        measuring: the baseline that is measured beside it; None where none is.
    """
    share = measuring.together.share if measuring is not None else None
    engine = dataclasses.replace(trial.engine, share=share)
    return engine, assign_gpus(engine)[0]


def score_baseline(baseline: ComparedWith, run: RunDirectory) -> None:
    """Put the baseline's scores, measured or given, into the run directory."""
    into, model = run.path / BASELINE_FOLDER, baseline.model

    def make() -> Scorecard:
        if isinstance(model, ScoredArm):
            return keep_baseline(model.path, into, digest=model.digest)
        if baseline.measuring is None:
            raise AssertionError  # it is there for every model
        return keep_baseline(baseline.measuring.scores(), into)

    run.stage(BASELINE, made_from=baseline.made_from, make=make)
