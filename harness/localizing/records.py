"""What a run's own records say: its plan beside its recipe, and where it ended without files."""

from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import CalibrationStats, Clue, OriginStage, PlannedLinear, QuantPlan, load
from harness.errors import HarnessError, ReasonCode
from harness.localizing.case import Case, Made
from harness.runs import PLAN_FILE

_OF_THE_MACHINE = frozenset(
    {
        ReasonCode.DISK_FULL,
        ReasonCode.INTERRUPTED,
        ReasonCode.OUT_OF_MEMORY,
        ReasonCode.PREREQUISITE_MISSING,
        ReasonCode.SYSTEM_REFUSED,
    }
)
"""Endings that say nothing about what was made."""


def plan_clues(made: Made, run: Path, unseen: list[str]) -> Iterator[Clue]:
    """Yield what the run planned otherwise than its recipe says."""
    path = run / PLAN_FILE
    if not path.exists():
        return
    try:
        planned = load(QuantPlan, path)
    except HarnessError as error:
        unseen.append(f"the plan of the run: {error}")
        return
    ours, theirs = (
        {one.linear.name: _formats(one) for one in plan.quantized} for plan in (made.plan, planned)
    )
    for name in dict.fromkeys((*ours, *theirs)):
        by_recipe, by_plan = ours.get(name, "no format"), theirs.get(name, "no format")
        if by_recipe != by_plan:
            message = f"{name} has {by_plan} in the run's plan, and {by_recipe} by its recipe"
            yield Clue(stage=OriginStage.QUANTIZATION, subject=name, message=message)


def ending_clues(case: Case, fresh: CalibrationStats | None) -> Iterator[Clue]:
    """Yield what it means that the run left no ranges, or no checkpoint made of them."""
    failure, verdict = case.side.failure, case.side.verdict
    if case.folder is not None or (failure is not None and failure.reason_code in _OF_THE_MACHINE):
        return
    said = failure.message if failure is not None else verdict.summary if verdict else ""
    ended = f"; the run said: {said}" if said else ""
    if case.recorded is not None:
        message = f"no checkpoint came of the recorded ranges{ended}"
        yield Clue(stage=OriginStage.EXPORT, subject="checkpoint", message=message)
        return
    anew = f", while {len(fresh.input_amax)} inputs can be measured" if fresh else ""
    message = f"no ranges were recorded{anew}{ended}"
    yield Clue(stage=OriginStage.CALIBRATION, subject="ranges", message=message)


def _formats(one: PlannedLinear) -> str:
    return f"{one.weight_format} with {one.input_format or 'plain'} inputs"
