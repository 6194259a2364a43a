"""What speaks against a GO beside the tasks' scores: length, speed and whatever else is gated.

Each further gate says it in its own words. One that decides nothing (it is advisory) is a warning:
a GO carries its reason after its own.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from harness.artifacts import Decision
from harness.errors import ReasonCode

SEVERITY = (Decision.NO_GO, Decision.INCONCLUSIVE, Decision.GO)
"""What wins over what, the first over the others."""


class Objection(NamedTuple):
    """One reason against a GO."""

    reason: ReasonCode
    decision: Decision
    """What it decides; GO where it is a warning."""
    message: str
    """The evidence, as a clause."""


def decisions_of(objections: Iterable[Objection]) -> Mapping[ReasonCode, Decision]:
    """Return the reasons that decide, each with the most that it decides."""
    found: dict[ReasonCode, Decision] = {}
    for one in objections:
        known = found.get(one.reason, Decision.GO)
        found[one.reason] = min(known, one.decision, key=SEVERITY.index)
    return {reason: decision for reason, decision in found.items() if decision is not Decision.GO}


def warnings_of(objections: Iterable[Objection]) -> tuple[ReasonCode, ...]:
    """Return the reasons of those that decide nothing, each once."""
    reasons = (one.reason for one in objections if one.decision is Decision.GO)
    return tuple(dict.fromkeys(reasons))


def said_of(objections: Iterable[Objection], reason: ReasonCode) -> str | None:
    """Return the evidence of a reason; None if nothing was said of it."""
    alike = [one for one in objections if one.reason is reason]
    first = min(alike, key=lambda one: SEVERITY.index(one.decision), default=None)
    return None if first is None else first.message
