"""Two arms that other tools recorded, as sides: the scores and conditions that they keep."""

from collections.abc import Mapping
from pathlib import Path

from harness.comparing.sides import Side, is_side
from harness.errors import IncomparableError
from harness.foreign import Recorded, is_recorded, read_recorded, suite_of_recorded
from harness.foreign.arms import to_arm

_ANY_MARGIN = 0.01
"""A suite needs one; nothing is judged by it."""


def are_recorded(a: Path, b: Path) -> bool:
    """Return whether both hold another tool's records, and nothing of harness."""
    return all(is_recorded(path) and not is_side(path) for path in (a, b))


def read_recorded_sides(a: Path, b: Path) -> tuple[Side, Side]:
    """Read the records of two arms.

    Raises:
        IncomparableError: two tools scored them, so that equal numbers mean different things.
    """
    left, right = read_recorded(a), read_recorded(b)
    if left.scorer != right.scorer:
        message = (
            f"'{a}' was scored by {left.scorer}, '{b}' by {right.scorer}. Score both with the "
            "same tool."
        )
        raise IncomparableError(message)
    suite = suite_of_recorded(left, right, _ANY_MARGIN)
    sides = []
    for place, recorded, other in ((a, left, right), (b, right, left)):
        arm = to_arm(recorded, suite, arm="candidate")
        sides.append(
            Side(
                place=place,
                candidate=arm,
                deployment=arm.scorecard.deployment,
                notes=tuple(_notes(recorded, other)),
            )
        )
    return sides[0], sides[1]


def _notes(recorded: Recorded, other: Recorded) -> list[str]:
    """Say under which conditions it was asked, as the tool says it, where the other was not."""
    conditions = {task.name: task.conditions for task in other.tasks}
    notes = [f"recorded by {recorded.tool} {recorded.version}"]
    for task in recorded.tasks:
        theirs: Mapping[str, object] = conditions.get(task.name, {})
        differing = [f"{k} {v}" for k, v in task.conditions.items() if theirs.get(k) != v]
        if task.name in conditions and differing:
            notes.append(f"{task.name} was asked with {'; '.join(differing)[:300]}")
    return notes
