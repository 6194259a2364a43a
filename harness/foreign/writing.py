"""Write the arms of a run in the layout of another tool."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness.artifacts import Arm, Suite
from harness.errors import UsageError
from harness.foreign.write_lm_eval import write_lm_eval
from harness.foreign.write_nel import write_nel

_Write = Callable[[Arm, Suite, Path, str], list[Path]]
LAYOUTS: Mapping[str, _Write] = {"lm-eval": write_lm_eval, "nel": write_nel}


def write_as(layout: str, arms: Mapping[str, Arm], suite: Suite, into: Path) -> list[Path]:
    """Write arms in the layout of another tool and return the files.

    Args:
        layout: `lm-eval` or `nel`.
        arms: by the name of the folder that each gets.
        suite: that they answered.
        into: folder, which must be empty or not there.

    Raises:
        UsageError: there is no such layout, or something lies in the folder.
    """
    if layout not in LAYOUTS:
        message = f"unknown layout '{layout}'. Type --as {' or --as '.join(LAYOUTS)}."
        raise UsageError(message)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        message = f"'{into}' is no empty folder. Name one that is empty, or not there."
        raise UsageError(message)
    stamp = datetime.now(UTC).replace(tzinfo=None).isoformat().replace(":", "-")
    return [
        file
        for name, arm in arms.items()
        for file in LAYOUTS[layout](arm, suite, into / name, stamp)
    ]
