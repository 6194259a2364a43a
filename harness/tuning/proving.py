"""Recipes at the gate: each attempt is an ordinary run, and the verdict is the gate's own."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from harness import pipeline, runs
from harness.artifacts import Attempt, Decision, Point, RunRecord, digest_of
from harness.errors import ExitCode
from harness.preflight import preflight
from harness.request import Request

_log = logging.getLogger("harness.tune")
_NEARNESS = (Decision.NO_GO, Decision.INCONCLUSIVE, Decision.GO)


def run_gate(request: Request, recipe: Path, into: Path) -> RunRecord:
    """Run a recipe to its verdict; finished stages of an earlier run there are kept.

    Raises:
        UsageError: it cannot be run on this machine or with this engine.
        RunDirectoryError: the directory is in use, or holds something else.
    """
    typed = replace(request, recipe=recipe, qformat=None)
    with runs.refusals_reported(into):
        job = preflight(typed, into=into)
    _, record = runs.run_job(job, into=into, work=pipeline.release_gate)
    return record


def attempt_of(point: Point, recipe: Path, run: Path, record: RunRecord) -> Attempt:
    """Return how a run ended."""
    verdict, failure = record.verdict, record.failure
    said = failure.message if failure is not None else verdict.summary if verdict else ""
    return Attempt(
        bits=point.bits,
        measured=point.measured,
        recipe=str(recipe),
        run=str(run),
        decision=None if failure is not None or verdict is None else verdict.decision,
        exit_code=int(runs.exit_code(record)),
        summary=said,
    )


def run_name(point: Point) -> str:
    """Return a part of a folder's name, the same for the same choice."""
    return f"{point.bits:.2f}-bits-{digest_of(point.choice)[:8]}"


def smallest_with_go(
    points: Sequence[Point], attempt: Callable[[Point], Attempt]
) -> tuple[Point, Attempt]:
    """Find the recipe of the fewest bits that gets GO, by bisection; else the one nearest to it.

    That a recipe of more bits gets GO where one of fewer does is assumed. A run that failed ends
    the search: nothing is known of its recipe.

    Args:
        points: from the fewest bits to the most, at least one.
        attempt: puts a recipe to the gate.
    """
    low, high = 0, len(points) - 1
    best: tuple[Point, Attempt] | None = None
    while low <= high:
        middle = (low + high) // 2
        point = points[middle]
        tried = attempt(point)
        _log.info("tune: %.2f bits: %s", point.bits, tried.decision or "failed")
        if tried.decision is None:
            return point, tried
        is_go = tried.exit_code == ExitCode.GO
        if best is None or is_go or _nearness(tried) >= _nearness(best[1]):
            best = point, tried
        low, high = (low, middle - 1) if is_go else (middle + 1, high)
    if best is None:
        raise AssertionError  # there is at least one point
    return best


def _nearness(tried: Attempt) -> int:
    return next((i for i, one in enumerate(_NEARNESS) if one == tried.decision), -1)
