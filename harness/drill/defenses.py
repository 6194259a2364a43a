"""The defenses that a fault can be caught in, and how each is switched off.

Every stage of a run is a defense. The drill shows two of them for each fault: the one that catches
it, and the one that does when the first is not there. Five can be taken away:

* preflight: the refusals of rules that match nothing or some experts, and of empty data
* calibrate: its own stops (an expert, a layer or a range that was not seen) and the coverage
* export: the comparison of what was written with the plan and with what was meant
* verify: as --skip-verify does it
* smoke: the suite's smoke set

The engine's own refusals and the gate cannot be switched off: an engine does not compute with a
scale that it does not have, and a run without scores has no verdict.

A run without a defense ends with a reason for that alone: without verification it can never be GO,
whatever the files are. So the second run counts as caught only by another reason, one that a
correct run would not get with the same defense switched off.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum

from harness.artifacts import ANY_COVERAGE, Checkpoint, QuantizedTensor, RunRecord
from harness.calibrate import Extent
from harness.calibrate.observer import Observer
from harness.drill.making import exchanged
from harness.errors import ReasonCode
from harness.export import CheckpointWriter, read_back, writer
from harness.preflight import Job, job
from harness.recipe import rules


class Defense(StrEnum):
    """A stage, as a place where a fault is caught."""

    PREFLIGHT = "preflight"
    CALIBRATE = "calibrate"
    EXPORT = "export"
    VERIFY = "verify"
    SERVE = "serve"
    SMOKE = "smoke"
    SCORE = "score"


SWITCHABLE = (Defense.PREFLIGHT, Defense.CALIBRATE, Defense.EXPORT, Defense.VERIFY, Defense.SMOKE)
OF_SWITCHING_OFF = frozenset({ReasonCode.VERIFY_SKIPPED})
"""Reasons that a correct run gets too when a defense is switched off."""
OF_THE_MACHINE = frozenset(
    {
        ReasonCode.DISK_FULL,
        ReasonCode.OUT_OF_MEMORY,
        ReasonCode.PREREQUISITE_MISSING,
        ReasonCode.SYSTEM_REFUSED,
    }
)
"""Reasons that say nothing about a fault."""
_complete = CheckpointWriter.complete
_BY_REASON = {
    ReasonCode.SMOKE_FAILED: Defense.SMOKE,
    ReasonCode.LOW_COVERAGE: Defense.CALIBRATE,
    ReasonCode.SCORING_FAILED: Defense.SCORE,
}
_BY_STAGE = {
    "calibrate": Defense.CALIBRATE,
    "export": Defense.EXPORT,
    "verify": Defense.VERIFY,
    "smoke": Defense.SERVE,
    "smoke declared": Defense.SERVE,
    "score candidate": Defense.SERVE,
    "score baseline": Defense.SERVE,
    "judge": Defense.SCORE,
}


def defense_of(stage: str, reason: ReasonCode) -> Defense:
    """Return the defense in which a run was caught that ended in `stage` for `reason`.

    A server is started by the first stage that asks it something; whatever goes wrong there that
    is no finding of the smoke run and no fault of scoring is the engine's refusal.
    """
    return _BY_REASON.get(reason) or _BY_STAGE.get(stage, Defense.PREFLIGHT)


def evidence_of(
    defense: Defense, reasons: tuple[ReasonCode, ...], record: RunRecord
) -> tuple[str, ...]:
    """Return what the defense says of the fault: the checks that failed, or the reasons."""
    if defense is Defense.VERIFY and record.integrity is not None and record.integrity.errors:
        return tuple(check.id for check in record.integrity.errors)
    if defense is Defense.SMOKE and record.smoke is not None and record.smoke.errors:
        return tuple(check.id for check in record.smoke.errors)
    return tuple(reasons)


@contextmanager
def switched_off(defense: Defense | None) -> Iterator[None]:
    """Take a defense away inside the context, as far as it is no matter of what is asked for."""
    with ExitStack() as stack:
        if defense is Defense.PREFLIGHT:
            for refusal in ("_refuse_unmatched", "_refuse_partial", "_refuse_shadowed"):
                stack.enter_context(exchanged(rules, refusal, _nothing))
            stack.enter_context(exchanged(job, "measure_extent", lambda *_: Extent(0, 0, 0)))
        elif defense is Defense.CALIBRATE:
            stack.enter_context(exchanged(Observer, "coverage", Observer.counts))
            stack.enter_context(exchanged(Observer, "input_amax", _whatever_was_seen))
        elif defense is Defense.EXPORT:
            stack.enter_context(exchanged(CheckpointWriter, "complete", _with_whatever_comes))
            stack.enter_context(exchanged(read_back, "check_read_back", _nothing))
        yield


def _with_whatever_comes(
    checkpoint: CheckpointWriter, rest: Iterable[QuantizedTensor]
) -> Checkpoint:
    """Complete a checkpoint that holds what came, in place of what the plan has."""
    came = list(rest)
    types = [
        (name, read_back.type_of(tensor)) for one in came for name, tensor in one.tensors.items()
    ]
    late = exchanged(writer, "late_tensors", lambda *_: ())
    with exchanged(writer, "early_tensors", lambda *_: types), late:
        return _complete(checkpoint, came)


def without(prepared: Job, defense: Defense | None) -> Job:
    """Return the job without the defense, as far as what is asked for decides it."""
    recipe = prepared.recipe
    if defense is Defense.VERIFY:
        recipe = dataclasses.replace(recipe, skip_verify=True)
    elif defense is Defense.SMOKE:
        suite = dataclasses.replace(recipe.suite, smoke=None)
        recipe = dataclasses.replace(recipe, suite=suite)
    elif defense is Defense.CALIBRATE:
        spec = dataclasses.replace(recipe.calibration, coverage=ANY_COVERAGE)
        recipe = dataclasses.replace(recipe, calibration=spec)
    return dataclasses.replace(prepared, recipe=recipe)


def _nothing(*arguments: object) -> None:
    del arguments


def _whatever_was_seen(observer: Observer) -> dict[str, float]:
    seen = observer._amax  # noqa: SLF001 - what the refusal stands before
    return {quantizer: float(value) for quantizer, value in seen.items()}
