"""From what was measured to what a suite asks: flips to expect, margins that decide. Pure."""

import dataclasses
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from harness.artifacts import Suite, TaskSpec, Tier
from harness.errors import SuiteError
from harness.gate import Flips, Variances, check_margins, smallest_margin

POWER = 0.8
"""How often a candidate without loss gets GO, on all critical tasks together."""
_LEAST_FLIPS = 0.04
_STEP = 0.0025
"""Margins are rounded up to a quarter of a point."""
_WIDEST = 0.5
_MOST_ITEMS = 200_000
_WISHED = 0.02


class Measured(NamedTuple):
    """What is known of one task."""

    spec: TaskSpec
    accuracy: float
    rerun: Flips | None
    """Between the baseline's two runs."""
    candidate: Flips | None
    """Between the baseline and a quantized candidate."""
    variances: Variances | None = None
    """Where each item was asked several times."""


class Proposed(NamedTuple):
    """One task of the suite, and why its numbers are what they are."""

    spec: TaskSpec
    flips_reason: str
    margin_reason: str


def propose_task(measured: Measured, suite: Suite, *, num_critical: int) -> Proposed:
    """Return a task with the smallest margin that can be decided.

    Args:
        measured: what is known of it.
        suite: that it is part of.
        num_critical: tasks that all have to pass.
    """
    flips, flips_reason = expected_flips(measured)
    spec = dataclasses.replace(
        measured.spec,
        flip_rate=flips,
        baseline_accuracy=_rounded(measured.accuracy),
        tier=Tier.CRITICAL,
    )
    if measured.variances is not None:
        spec = dataclasses.replace(
            spec,
            item_sd=_rounded(measured.variances.item_sd),
            repeat_sd=_rounded(measured.variances.repeat_sd),
        )
    power = POWER ** (1 / num_critical)
    margin = _up(smallest_margin(spec, suite.confidence, power=power))
    spec = dataclasses.replace(spec, margin=margin)
    problem = _problem(spec, suite)
    if problem is not None:
        advisory = dataclasses.replace(spec, tier=Tier.ADVISORY)
        return Proposed(advisory, flips_reason, f"reported, and decides nothing: {problem}")
    needed = items_for(spec, suite.confidence)
    more = f"; {_WISHED:.0%} would take about {needed} items" if margin > _WISHED and needed else ""
    why = f"the least within which a candidate without loss is {power:.0%} of the time{more}"
    return Proposed(spec, flips_reason, why)


def expected_flips(measured: Measured) -> tuple[float, str]:
    """Return the share of items that a candidate answers otherwise, and where it is from."""
    again = measured.rerun.rate if measured.rerun is not None else None
    noise = f"; of the baseline's own second run {again:.2%}" if again is not None else ""
    if measured.candidate is not None and measured.candidate.num_items:
        flips, items = measured.candidate.num_flips, measured.candidate.num_items
        share = (flips + 1) / (items + 2)
        rate = share + math.sqrt(share * (1 - share) / items)
        why = f"measured on a candidate: {flips} of {items} items, and a standard error{noise}"
        return _rounded(max(rate, again or 0.0)), why
    accuracy = measured.accuracy
    assumed = max(accuracy * (1 - accuracy), _LEAST_FLIPS, again or 0.0)
    why = (
        f"assumed from the baseline's accuracy a = {accuracy:.2%}, as a (1 - a) and at least "
        f"{_LEAST_FLIPS:.0%}{noise}; measure it with --qformat or --candidate"
    )
    return _rounded(assumed), why


def items_for(spec: TaskSpec, confidence: float, margin: float = _WISHED) -> int | None:
    """Return how many items would decide a margin of two points; None where no number would do."""
    if spec.repeats > 1:
        return None
    sizes = [spec.items * 2**step for step in range(1, 18) if spec.items * 2**step < _MOST_ITEMS]

    def is_enough(items: int) -> bool:
        larger = dataclasses.replace(spec, items=items)
        return smallest_margin(larger, confidence) <= margin

    place = bisect_left(sizes, x=True, key=is_enough)
    if place == len(sizes):
        return None
    low, high = sizes[place] // 2, sizes[place]
    step = max(high // 20, 1)
    candidates = range(low, high + step, step)
    return candidates[bisect_left(candidates, x=True, key=is_enough)]


def shown_truncation(shares: Sequence[float]) -> tuple[float, str]:
    """Return the share of answers that may be cut, and where it is from."""
    worst = max(shares, default=0.0)
    allowed = max(0.02, math.ceil(2 * worst * 100) / 100)
    return min(allowed, 1.0), f"twice the baseline's {worst:.1%} at least, and 2 %"


def _problem(spec: TaskSpec, suite: Suite) -> str | None:
    """Return why a task cannot decide anything; None where it can."""
    if (spec.margin or 0.0) >= _WIDEST:
        return f"{spec.items} items decide no margin below {_WIDEST:.0%}"
    if spec.baseline_accuracy <= spec.chance:
        return f"the baseline gets {spec.baseline_accuracy:.1%}, no more than by guessing"
    alone = dataclasses.replace(suite, tasks=(spec,), pooled_margin=None)
    try:
        check_margins(alone)
    except SuiteError as error:
        return " ".join(str(error).split())
    return None


def _up(margin: float) -> float:
    return min(round(math.ceil(margin / _STEP - 1e-9) * _STEP, 4), _WIDEST)


def _rounded(value: float) -> float:
    return round(value, 4)
