"""What alarms in a night, run again on the same bytes and environment before anyone is told.

The ledger says which alarm asks for a rerun, and where (harness.nights). What is asked of this
machine is done at once; what is asked of another is said, with what is to be typed there.
"""

import platform
from collections.abc import Iterator, Sequence

from harness.artifacts.nights import Alarm, NightRow, Purpose
from harness.nightly.matrix import Cell, Matrix
from harness.nightly.places import Place
from harness.nightly.running import Errand, Runner
from harness.nights import Ledger, Raised, Where, raised, raised_by, sick_hosts, unwatched

_MOST_RERUNS = 2
_NIGHTS = 14
"""Of which failures are counted by host."""


def confirm(cells: Sequence[Cell], place: Place, ledger: Ledger, runner: Runner) -> None:
    """Run again, here, the cells whose alarms of this night ask it of this machine.

    Raises:
        StageError: the ledger cannot be written.
    """
    for _ in range(_MOST_RERUNS):
        rows = ledger.rows()
        asked = {one.row.cell for one in _raised(rows, place.night) if _is_asked_here(one)}
        errands = [
            Errand(cell, Purpose.CONFIRMATION, 1 + _num_reruns(rows, cell.name, place.night))
            for cell in cells
            if cell.name in asked
        ]
        if not errands:
            return
        runner.make(errands, share=1)


def alarms_of(rows: Sequence[NightRow], cells: Sequence[Cell], night: str) -> tuple[Alarm, ...]:
    """Return what alarms in a night, of these cells, real losses of earlier nights among it."""
    names = {cell.name for cell in cells}
    return tuple(one.alarm for one in raised_by(rows, night) if one.row.cell in names)


def notes_of(
    rows: Sequence[NightRow], cells: Sequence[Cell], matrix: Matrix, place: Place
) -> Iterator[str]:
    """Yield what else is worth saying of a night, a line each."""
    names = {cell.name for cell in cells}
    for one in _raised(rows, place.night):
        if one.ask is Where.SAME_HOST and one.row.cell in names and not _is_asked_here(one):
            yield (
                f"not confirmed yet: {one.row.cell}, {one.alarm.what}. On {one.row.host} type "
                f"`harness nightly {matrix.path} --only {one.row.cell} --night {place.night} "
                f"--out {place.out}`."
            )
    nights = list(dict.fromkeys(row.night for row in rows))[-_NIGHTS:]
    for host in sick_hosts(row for row in rows if row.night in nights):
        yield host.message
    reasons: dict[str, list[str]] = {}
    for cell, why in unwatched(row for row in rows if row.cell in names).items():
        reasons.setdefault(why, []).append(cell)
    for why, unseen in reasons.items():
        yield f"drift is not watched in {', '.join(unseen)}: {why}"


def _raised(rows: Sequence[NightRow], night: str) -> list[Raised]:
    return [one for one in raised(rows) if one.alarm.night == night]


def _is_asked_here(one: Raised) -> bool:
    """Return whether the rerun that an alarm asks for can be made on this machine."""
    is_same_host = one.row.host == platform.node()
    return one.ask is (Where.SAME_HOST if is_same_host else Where.OTHER_HOST)


def _num_reruns(rows: Sequence[NightRow], cell: str, night: str) -> int:
    return sum((r.cell, r.night, r.purpose) == (cell, night, Purpose.CONFIRMATION) for r in rows)
