"""Wait for cells that other machines run, over the folder that all share."""

import logging
import re
import time
from collections.abc import Sequence

from harness.artifacts.nights import CellEnding, NightRow
from harness.errors import UsageError
from harness.nightly.attempts import due, may_pass_at_once, runs_of
from harness.nightly.matrix import Cell
from harness.nightly.places import Place
from harness.nights import open_ledger

_log = logging.getLogger("harness.nightly")
_LOOK_S = 20.0
_TIME = re.compile(r"([0-9]{1,4})([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def read_wait(text: str) -> float:
    """Return a time such as `90m` in seconds.

    Raises:
        UsageError: it is none.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        message = f"--wait {text!r} is no time. Type a number and a unit, such as 90m or 24h."
        raise UsageError(message)
    return float(int(found[1]) * _SECONDS[found[2]])


def wait_for(cells: Sequence[Cell], place: Place, seconds: float) -> None:
    """Return when every cell has ended in this night, refusals too, or the time is over.

    Raises:
        RunDirectoryError: lines of the ledger were changed.
    """
    until = time.monotonic() + seconds
    while (waiting := _waiting(cells, place)) and (left := until - time.monotonic()) > 0:
        _log.info("nightly: %d of %d cells have not ended", len(waiting), len(cells))
        time.sleep(min(_LOOK_S, left))
    for cell in waiting:
        _log.warning("nightly: %s has not ended, and is waited for no more", cell.name)


def _waiting(cells: Sequence[Cell], place: Place) -> list[Cell]:
    rows = open_ledger(place.out).rows()
    refused = {
        row.cell for row in rows if row.night == place.night and row.ending is CellEnding.NOT_RUN
    }
    return [c for c in cells if c.name not in refused and _is_awaited(place, c, rows)]


def _is_awaited(place: Place, cell: Cell, rows: Sequence[NightRow]) -> bool:
    """Return whether somebody may be at a cell: not where only typing it again would go on."""
    ran = runs_of(rows, cell.name, place.night)
    is_left = bool(ran) and not may_pass_at_once(ran[-1])
    return not is_left and due(place, cell, rows) is not None
