"""How a check words its answer."""

from collections.abc import Sequence

from harness.artifacts import Check, Severity

_MAX_EXAMPLES = 5


def finding(
    check: str, faults: Sequence[str], *, good: str, bad: str, severity: Severity = Severity.ERROR
) -> Check:
    """Return the check's answer: passed where there is no fault.

    Args:
        check: stable id.
        faults: one line for each thing that is wrong; the first ones are kept as examples.
        good: the message if nothing is wrong.
        bad: the message else, without examples.
        severity: what a fault means.
    """
    message = f"{bad} (first: {faults[0]})" if faults else good
    return Check(
        id=check,
        passed=not faults,
        severity=severity,
        message=message,
        num_faulty=len(faults),
        examples=tuple(faults[:_MAX_EXAMPLES]),
    )
