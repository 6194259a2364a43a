"""What came of a night: how each cell of the matrix ended, what alarmed, and the exit code.

What stands for a cell, and what it makes of the nightly, is the ledger's to say (harness.nights).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.artifacts.nights import Alarm, AlarmCause, NightRow, Purpose
from harness.errors import ExitCode
from harness.nights import day_of, exit_code_of_night, is_excused, standing, worst_of

_OF_ALARM = {
    AlarmCause.REAL: ExitCode.NO_GO,
    AlarmCause.UNCONFIRMED: ExitCode.INCONCLUSIVE,
    AlarmCause.FLAKY: ExitCode.GO,
    AlarmCause.INFRASTRUCTURE: ExitCode.GO,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CellOutcome:
    """How a cell ended in a night."""

    cell: str
    row: NightRow
    attempts: int
    """That were made, confirmations left out."""
    waived: bool
    """Whether a waiver excuses how it ended."""
    exit_code: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NightOutcome:
    """A whole night."""

    matrix: str
    night: str
    cells: tuple[CellOutcome, ...]
    alarms: tuple[Alarm, ...] = ()
    """Raised in this night, or real since an earlier one."""
    notes: tuple[str, ...] = ()
    """What else is worth saying, such as a host where failures pile up; a line each."""

    @property
    def exit_code(self) -> ExitCode:
        """Return the worst of its cells; an alarm that was confirmed is a NO-GO."""
        waived = {one.cell for one in self.cells if one.waived}
        alarmed = [_OF_ALARM[a.cause] for a in self.alarms if a.cell not in waived]
        return worst_of([*(ExitCode(one.exit_code) for one in self.cells), *alarmed])

    @property
    def told(self) -> tuple[Alarm, ...]:
        """Return the alarms that anyone is told: those that were run again."""
        return tuple(one for one in self.alarms if one.cause is not AlarmCause.UNCONFIRMED)


def outcomes_of(
    cells: Iterable[str], night: str, rows: Sequence[NightRow]
) -> Iterable[CellOutcome]:
    """Yield how each cell ended; every one has a row."""
    stands, today = standing(rows, night), day_of(rows)
    for cell in cells:
        row = stands[cell]
        ours = [r for r in rows if (r.cell, r.night) == (cell, night)]
        made = {r.attempt for r in ours if r.purpose is not Purpose.CONFIRMATION and r.host}
        yield CellOutcome(
            cell=cell,
            row=row,
            attempts=len(made),
            waived=is_excused(row, today),
            exit_code=exit_code_of_night(rows, [cell], night),
        )


def said(row: NightRow) -> str:
    """Return a row's message without the ending, with which a verdict's begins."""
    return row.message.removeprefix(f"{row.ending}: ")
