"""The ranges that a run recorded beside those that its data and its inputs really give."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

from harness.artifacts import CalibrationStats, Clue, OriginStage
from harness.localizing.case import Made

_SAME_INPUTS = 1.25
"""Factor up to which an input's range is the same: another device rounds otherwise, and the largest
of a hundred thousand values moves."""
_SAME_WEIGHTS = 1.0 + 1e-6
"""The largest value of a weight is read, not computed."""
_FAR = 2.0
"""Factor by which inputs exceed a range `by far`: what is cut off is no rounding any more."""


def range_clues(
    made: Made, recorded: CalibrationStats, fresh: CalibrationStats | None
) -> Iterable[Clue]:
    """Yield what of the recorded ranges the recipe's own data do not give.

    Args:
        made: the model and its plan.
        recorded: by the run.
        fresh: measured anew; None where that could not be done.
    """
    if fresh is None:
        return
    weights = {one.linear.name for one in made.plan.quantized}
    yield from _unlike(
        {n: v for n, v in fresh.weight_amax.items() if n in weights},
        recorded.weight_amax,
        _SAME_WEIGHTS,
        "the weight's largest value",
    )
    yield from _unlike(
        fresh.input_amax, recorded.input_amax, _SAME_INPUTS, "what the recipe's data give"
    )
    if fresh.num_tokens != recorded.num_tokens:
        yield _clue(
            "the calibration",
            f"ran {recorded.num_tokens} tokens where the recipe's data have {fresh.num_tokens}",
        )


def _unlike(
    fresh: Mapping[str, float], recorded: Mapping[str, float], same: float, what: str
) -> Iterable[Clue]:
    """Yield which recorded ranges are missing, and which are other than those measured anew."""
    missing = [name for name in fresh if name not in recorded]
    if missing:
        yield _clue(missing[0], f"has no recorded range, of {len(fresh)} that were measured anew")
        yield from (_clue(name, "has no recorded range") for name in missing[1:])
    for name, value in fresh.items():
        if name in recorded and not _is_within(recorded[name], value, same):
            times = recorded[name] / value if value else math.inf
            clue = _clue(name, f"has a recorded range of {times:.3g} times {what}")
            # Another machine may find an input's range a little elsewhere.
            is_sure = same < _SAME_INPUTS or not _is_within(recorded[name], value, _FAR)
            yield replace(clue, decisive=is_sure)


def _is_within(one: float, other: float, factor: float) -> bool:
    return other / factor <= one <= other * factor


def reach_clues(recorded: Mapping[str, float], reach: Mapping[str, float]) -> Iterable[Clue]:
    """Yield which recorded ranges the inputs of the texts read here exceed by far."""
    for name, value in reach.items():
        if name in recorded and value > _FAR * recorded[name]:
            times = value / recorded[name] if recorded[name] else math.inf
            message = f"takes inputs of {times:.3g} times the range that calibration recorded"
            yield replace(_clue(name, message), decisive=False)


def independent(
    fresh: CalibrationStats | None, reach: Mapping[str, float]
) -> CalibrationStats | None:
    """Return ranges for which nothing of the run is believed, not even the choice of its data.

    They are those measured anew; where the texts read here exceed one by far, these decide.
    """
    if fresh is None:
        return None
    wider = {n: reach[n] for n, v in fresh.input_amax.items() if reach.get(n, 0.0) > _FAR * v}
    return replace(fresh, input_amax={**fresh.input_amax, **wider})


def same_ranges(one: CalibrationStats, other: CalibrationStats) -> bool:
    """Return whether both give the same scales."""
    return (one.weight_amax, one.input_amax) == (other.weight_amax, other.input_amax)


def _clue(subject: str, message: str) -> Clue:
    return Clue(stage=OriginStage.CALIBRATION, subject=subject, message=f"{subject} {message}")
