"""One run with one fault in it: the same preflight, pipeline and reports as a user's."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from harness import pipeline
from harness.artifacts import (
    CalibrationStats,
    Checkpoint,
    Decision,
    RunRecord,
    digest_of,
    load,
)
from harness.baselines import versions
from harness.calibrate import read_stats
from harness.drill.catalogue import find_format
from harness.drill.defenses import (
    OF_SWITCHING_OFF,
    OF_THE_MACHINE,
    Defense,
    defense_of,
    evidence_of,
    switched_off,
    without,
)
from harness.drill.fault import DrillFormat, Fault, FileFault
from harness.drill.making import exchanged
from harness.drill.result import Attempt
from harness.drill.tampering import link_checkpoint, tampering
from harness.errors import ExitCode, HarnessError, ReasonCode
from harness.export import CheckpointWriter
from harness.models import digest_folder
from harness.preflight import Job, preflight
from harness.recipe import Request, load_suite
from harness.rundir import RunDirectory
from harness.runs import exit_code, run_job
from harness.stages import CALIBRATE, EXPORT

MODEL = "canary"
BUGS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
"""What a run raises that meets something it was not written for."""
CALIBRATION_SAMPLES = 128
"""Enough for the canary; each fault of calibration measures its ranges anew."""


_log = logging.getLogger("harness.drill")


class DrillSetting(NamedTuple):
    """What all runs of a drill have in common."""

    folder: Path
    suite: str
    engine: str
    vllm: Path | None = None
    engine_args: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Return the digest of what decides the results of a drill."""
        suite = load_suite(self.suite).digest
        return digest_of(versions(), suite, self.engine, str(self.vllm), self.engine_args)

    def request(self, form: DrillFormat, **options: object) -> Request:
        """Return what a user would type for a run of `form`."""
        typed: dict[str, object] = {
            "model": MODEL,
            "qformat": form.qformat,
            "kv_cache": form.kv_cache,
            "calib_size": CALIBRATION_SAMPLES,
            "suite": self.suite,
            "engine": self.engine,
            "numerics": "declared",
            "vllm": self.vllm,
            "engine_args": self.engine_args,
        }
        return Request(**(typed | options))  # type: ignore[arg-type]  # checked by the catalogue's test


class _Watch:
    """Does a run's work; knows afterwards in which stage it ended, and when."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.stage = ""
        self.seconds = 0.0

    def __call__(self, job: Job, run: RunDirectory) -> None:
        try:
            pipeline.release_gate(job, run)
        finally:
            self.stage = run.current
            self.stop()

    def stop(self) -> None:
        """Note the time since the beginning."""
        self.seconds = round(time.monotonic() - self._started, 2)


def attempt(
    setting: DrillSetting, fault: Fault, correct: Path, into: Path, *, off: Defense | None
) -> Attempt:
    """Run the pipeline with `fault` in it, and without the defense `off`.

    Args:
        setting: of the drill.
        fault: what is put back.
        correct: run directory of the correct run of the same format.
        into: run directory of this one.
        off: the defense that is switched off.
    """
    watch = _Watch()
    into.mkdir(parents=True)
    options = {} if isinstance(fault, FileFault) else fault.options(into.parent)
    request = setting.request(find_format(fault.format), **options)
    # The defense goes first: a fault may strike just before what the defense looks at.
    with switched_off(off), _struck(fault, correct):
        try:
            job = preflight(request, into=into)
        except HarnessError as error:
            watch.stop()
            return _refused(off, error, watch.seconds)
        try:
            _, record = run_job(without(job, off), into=into, work=watch)
        except BUGS as error:
            _log.exception("drill: a bug in harness, brought to light by %s", fault.name)
            return _crashed(off, error, watch.seconds)
    return judged(off, record, watch.stage, watch.seconds)


def _struck(fault: Fault, correct: Path) -> AbstractContextManager[object]:
    return _spoiling(fault, correct) if isinstance(fault, FileFault) else fault.during()


@contextmanager
def _spoiling(fault: FileFault, correct: Path) -> Iterator[None]:
    """Let calibration and export give what they gave in the correct run, and then spoil it."""

    def calibrate(*arguments: object, **options: object) -> CalibrationStats:
        del arguments, options
        return read_stats(correct / CALIBRATE.file)

    def complete(writer: CheckpointWriter, rest: object) -> Checkpoint:
        del rest
        link_checkpoint(correct / "checkpoint", writer.into)
        with tampering(writer.into) as files:
            fault.spoil(files)
        made = load(Checkpoint, correct / EXPORT.file)
        return dataclasses.replace(
            made, directory=str(writer.into), digest=digest_folder(writer.into)
        )

    calibrated = exchanged(pipeline, "calibrate_and_write", calibrate)
    with calibrated, exchanged(CheckpointWriter, "complete", complete):
        yield


def message_of(record: RunRecord) -> str:
    """Return the line that a run ended with."""
    if record.failure is not None:
        return record.failure.message
    return record.verdict.summary if record.verdict is not None else ""


def _crashed(off: Defense | None, error: Exception, seconds: float) -> Attempt:
    """Return how a run ended that met a bug: the drill ends with 1, but not before its end."""
    return Attempt(
        off=off,
        caught_by=None,
        evidence=(type(error).__name__,),
        decision=None,
        exit_code=ExitCode.BUG,
        message=str(error),
        seconds=seconds,
    )


def _refused(off: Defense | None, error: HarnessError, seconds: float) -> Attempt:
    """Return how a run ended that did not start."""
    caught = error.reason not in OF_THE_MACHINE
    return Attempt(
        off=off,
        caught_by=Defense.PREFLIGHT if caught else None,
        evidence=(error.reason,),
        decision=None,
        exit_code=error.exit_code,
        message=str(error),
        seconds=round(seconds, 2),
    )


def judged(off: Defense | None, record: RunRecord, stage: str, seconds: float) -> Attempt:
    """Return how a run ended that did start; `stage` is the last one that it was in."""
    verdict, failure = record.verdict, record.failure
    reasons: tuple[ReasonCode, ...] = ()
    if failure is not None:
        reasons = (failure.reason_code,)
    elif verdict is not None and verdict.decision is not Decision.GO:
        reasons = verdict.reason_codes
    told = tuple(r for r in reasons if r not in OF_SWITCHING_OFF | OF_THE_MACHINE)
    defense = defense_of(stage, told[0]) if told else None
    return Attempt(
        off=off,
        caught_by=defense,
        evidence=evidence_of(defense, told, record) if defense else reasons,
        decision=verdict.decision if verdict is not None else None,
        exit_code=exit_code(record),
        message=message_of(record),
        seconds=seconds,
    )
