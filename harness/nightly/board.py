"""How a nightly stands: a table that updates in a terminal, nothing more than log lines elsewhere.

Both go to standard error, like all progress; what came of it is the command's result.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from harness.artifacts.nights import CellEnding
from harness.nightly.running import Board, CellState

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_log = logging.getLogger("harness.nightly")
_STYLES = {CellEnding.GO: "green", CellEnding.INCONCLUSIVE: "yellow", "running": "cyan"}
_PLAIN = {"waiting", "elsewhere"}


class Silent:
    """Shows nothing: the log lines of each start and end are enough."""

    def show(self, states: Sequence[CellState]) -> None:
        """Show nothing."""


class LiveTable:
    """A table in a terminal, drawn again whenever it is shown."""

    def __init__(self, live: "Live") -> None:
        """Draw on `live`."""
        self._live = live

    def show(self, states: Sequence[CellState]) -> None:
        """Show how it stands."""
        self._live.update(table_of(states), refresh=True)


@contextmanager
def board_for(console: "Console | None" = None) -> Iterator[Board]:
    """Give what shows progress: a table where standard error is a terminal and progress is wanted.

    While the table is there, it tells what the log lines would.
    """
    if not _log.isEnabledFor(logging.INFO) or not (console or sys.stderr.isatty()):
        yield Silent()
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
    from rich.live import Live  # noqa: PLC0415

    before = _log.level
    _log.setLevel(logging.WARNING)
    try:
        with Live(
            console=console or Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        ) as live:
            yield LiveTable(live)
    finally:
        _log.setLevel(before)


def table_of(states: Sequence[CellState]) -> "Table":
    """Return the states as a table; what does not fit in a line is cut."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, expand=True)
    for name, most in (("cell", 3), ("state", 2), ("where", 1), ("try", None), ("time", None)):
        table.add_column(name, no_wrap=True, ratio=most, overflow="ellipsis")
    table.add_column("", no_wrap=True, ratio=6, overflow="ellipsis")
    for state in states:
        style = _STYLES.get(state.what, "" if state.what in _PLAIN else "red")
        table.add_row(
            Text(state.cell),
            Text(state.what, style=style),
            Text(state.where),
            Text(str(state.attempt)),
            Text(_clock(state.seconds) if state.seconds else ""),
            Text(state.said),
        )
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
