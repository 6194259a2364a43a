"""A check of the comparison, and the number behind it."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.artifacts import Check, Measure, Severity

_MOST_EXAMPLES = 5


class SmokeFinding(NamedTuple):
    """One check, and its number where there is one."""

    check: Check
    measure: Measure | None = None


def found(name: str, message: str, *, faulty: Sequence[str] = ()) -> SmokeFinding:
    """Return a check that names what is wrong; it has passed where nothing is."""
    return SmokeFinding(_check(name, message, passed=not faulty, faulty=faulty))


def measured(
    name: str, message: str, measure: Measure, *, faulty: Sequence[str] | None
) -> SmokeFinding:
    """Return a check of a number; `faulty` is None where it is within its limit."""
    return SmokeFinding(_check(name, message, passed=faulty is None, faulty=faulty or ()), measure)


def not_run(name: str, why: str) -> SmokeFinding:
    """Return a check that could not be run, which is no reason to believe in anything."""
    return SmokeFinding(
        Check(id=name, passed=False, severity=Severity.WARNING, message=f"not run: {why}")
    )


def _check(name: str, message: str, *, passed: bool, faulty: Sequence[str]) -> Check:
    return Check(
        id=name,
        passed=passed,
        severity=Severity.ERROR,
        message=message,
        num_faulty=len(faulty),
        examples=tuple(faulty[:_MOST_EXAMPLES]),
    )
