"""What a night came to: one row for each cell that was to run, and what the nightly returns."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime

from harness.artifacts import CellEnding, NightRow, Purpose
from harness.errors import ExitCode

_CODES = {
    CellEnding.GO: ExitCode.GO,
    CellEnding.NO_GO: ExitCode.NO_GO,
    CellEnding.INCONCLUSIVE: ExitCode.INCONCLUSIVE,
    CellEnding.INFRA_FAILED: ExitCode.STAGE_FAILED,
    CellEnding.BOTH_ARMS_FAILED: ExitCode.STAGE_FAILED,
    CellEnding.NO_BASELINE: ExitCode.STAGE_FAILED,
    CellEnding.NOT_RUN: ExitCode.STAGE_FAILED,
}
"""What each ending makes of a nightly; a test says that only GO is 0."""
_WORST = (
    ExitCode.BUG,
    ExitCode.STAGE_FAILED,
    ExitCode.NO_GO,
    ExitCode.INCONCLUSIVE,
    ExitCode.GO,
)


def standing(rows: Iterable[NightRow], night: str) -> Mapping[str, NightRow]:
    """Return the row that stands for each cell in a night.

    That is its last attempt, and of that the last row, but one that says that it was not run only
    where nothing else does. Confirmations say something of an alarm and not of the cell.
    """
    found: dict[str, NightRow] = {}
    for row in rows:
        if row.night != night or row.purpose is Purpose.CONFIRMATION:
            continue
        known = found.get(row.cell)
        if known is None or _weight(row) >= _weight(known):
            found[row.cell] = row
    return found


def not_recorded(cells: Iterable[str], rows: Iterable[NightRow], night: str) -> tuple[str, ...]:
    """Return the cells that were to run in a night and have no row: each is to get one."""
    known = standing(rows, night)
    return tuple(cell for cell in cells if cell not in known)


def exit_code_of_night(rows: Sequence[NightRow], cells: Iterable[str], night: str) -> ExitCode:
    """Return the worst that the cells of a night came to, waived ones left out.

    A cell without a row was not run, and a night without a cell is none: neither is 0.
    """
    found, named = standing(rows, night), list(cells)
    today = day_of(rows)
    codes = {
        _CODES[found[cell].ending] if cell in found else ExitCode.STAGE_FAILED
        for cell in named
        if cell not in found or not is_excused(found[cell], today)
    }
    if any(found[c].exit_code == ExitCode.BUG for c in named if c in found):
        codes.add(ExitCode.BUG)
    if not named:
        return ExitCode.STAGE_FAILED
    return worst_of(codes)


def worst_of(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the worst of what the parts of a nightly came to."""
    found = set(codes)
    return next(code for code in _WORST if code in found or code is ExitCode.GO)


def is_excused(row: NightRow, today: date) -> bool:
    """Return whether a reviewed waiver answers for how a cell ended; its last day is one.

    None answers for a cell that did not run, for what is waived runs all the same, nor for a bug.
    """
    if row.ending is CellEnding.NOT_RUN or row.exit_code == ExitCode.BUG:
        return False
    if row.waiver is None or row.is_green:
        return False
    return today <= row.waiver.expires


def day_of(rows: Iterable[NightRow], now: datetime | None = None) -> date:
    """Return today by UTC, or the latest day that the ledger knows, where that is later.

    So a clock that is set back brings no waiver back that has expired.
    """
    today = (now or datetime.now(UTC)).date().isoformat()
    return date.fromisoformat(max([today, *(row.ended[:10] for row in rows if row.ended)]))


def _weight(row: NightRow) -> tuple[bool, int]:
    return row.ending is not CellEnding.NOT_RUN, row.attempt
