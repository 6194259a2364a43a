"""Where a nightly keeps what: one folder for all nights, with the ledger; in it one a night.

OUT/ledger.*                       the rows of all nights (harness.nights)
OUT/nights/NIGHT/CELL/run          the cell's run directory
OUT/nights/NIGHT/CELL/attempt-1.*  when it began and ended, and what it printed
OUT/nights/NIGHT/CELL/confirmation where an alarm made it run again
OUT/nights/NIGHT/nightly.*         the night's reports
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.artifacts.nights import Purpose
from harness.errors import UsageError

_NIGHT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Place:
    """One night of a nightly."""

    out: Path
    night: str

    def __post_init__(self) -> None:
        if not _NIGHT.fullmatch(self.night):
            message = (
                f"'{self.night}' cannot name a night, which is a folder. Type letters, digits, "
                "'.', '_' and '-', such as --night 2031-12-31."
            )
            raise UsageError(message)

    @property
    def folder(self) -> Path:
        """Return the night's folder."""
        return self.out / "nights" / self.night

    def cell(self, name: str) -> Path:
        """Return the folder of a cell."""
        return self.folder / name

    def run_dir(self, name: str, purpose: Purpose, number: int = 1) -> Path:
        """Return the run directory: a retry goes on in the first; a confirmation has its own."""
        return self._of(name, purpose, number) / "run"

    def attempt(self, name: str, purpose: Purpose, number: int) -> Path:
        """Return the path of what is known of an attempt, without its suffix."""
        return self._of(name, purpose, number) / f"attempt-{number}"

    def _of(self, name: str, purpose: Purpose, number: int) -> Path:
        is_own = purpose is Purpose.CONFIRMATION
        return self.cell(name) / (f"confirmation-{number}" if is_own else "")


def this_night() -> str:
    """Return today, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def this_moment() -> str:
    """Return the time, UTC, as rows have it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
