"""What came of a night: how each cell of the matrix ended, what alarmed, and the exit code.

Only GO is green. A cell without a row is not-run, which is never green, whoever left it out. A
waiver excuses an ending until its day; it excuses neither a cell that did not run nor a bug.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.artifacts.nights import Alarm, AlarmCause, CellEnding, NightRow
from harness.errors import ExitCode
from harness.nightly.attempts import runs_of
from harness.nightly.matrix import Cell

WORST_FIRST = (
    ExitCode.BUG,
    ExitCode.STAGE_FAILED,
    ExitCode.NO_GO,
    ExitCode.INCONCLUSIVE,
    ExitCode.GO,
)
_CODES: Mapping[CellEnding, ExitCode] = {
    CellEnding.GO: ExitCode.GO,
    CellEnding.NO_GO: ExitCode.NO_GO,
    CellEnding.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
}
"""Of those that have a verdict; a cell without one is a stage that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellOutcome:
    """How a cell ended in a night."""

    cell: str
    row: NightRow
    attempts: int
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
    """Raised in this night, and confirmed or not to be confirmed: who is told, is told these."""
    notes: tuple[str, ...] = ()
    """What else is worth saying, such as a host where failures pile up; a line each."""

    @property
    def exit_code(self) -> ExitCode:
        """Return the worst of its cells; an alarm that was confirmed is a NO-GO."""
        waived = {one.cell for one in self.cells if one.waived}
        codes = [ExitCode(one.exit_code) for one in self.cells]
        codes += [
            ExitCode.NO_GO
            for alarm in self.alarms
            if alarm.cause is AlarmCause.REAL and alarm.cell not in waived
        ]
        return min(codes, key=WORST_FIRST.index)


def outcome_of(cell: Cell, night: str, rows: Sequence[NightRow], none: NightRow) -> CellOutcome:
    """Return how a cell ended.

    Args:
        cell: of the matrix.
        night: which.
        rows: of the ledger.
        none: its row where the ledger has none.
    """
    ran = runs_of(rows, cell.name, night)
    others = [row for row in rows if (row.cell, row.night) == (cell.name, night)]
    row = [none, *others, *ran][-1]
    code = _CODES.get(row.ending, ExitCode.STAGE_FAILED)
    if row.exit_code == ExitCode.BUG:
        code = ExitCode.BUG
    is_excused = cell.waived_now and code not in (ExitCode.GO, ExitCode.BUG)
    is_waived = is_excused and row.ending is not CellEnding.NOT_RUN
    return CellOutcome(
        cell=cell.name,
        row=row,
        attempts=len(ran),
        waived=is_waived,
        exit_code=ExitCode.GO if is_waived else code,
    )


def said(row: NightRow) -> str:
    """Return a row's message without the ending, with which a verdict's begins."""
    return row.message.removeprefix(f"{row.ending}: ")
