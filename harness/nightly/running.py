"""Run cells on this machine: each as a process, as many at a time as there is room for.

Whatever ends the nightly ends its cells too, and no cell that was told to end gets a row: typed
again, it goes on where it was. A cell that failed is no reason to stop another.
"""

import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from harness.artifacts.nights import NightRow, Purpose
from harness.nightly.attempts import (
    Attempt,
    begin,
    due,
    end,
    is_recorded,
    lock_cell,
    may_pass_at_once,
    row_of,
    row_of_none,
    rows_lost,
)
from harness.nightly.child import HARNESS, CellProcess
from harness.nightly.confirming import prepare
from harness.nightly.matrix import Cell
from harness.nightly.outcome import said
from harness.nightly.places import Place
from harness.nightly.slots import Gpu, Slots
from harness.nights import Ledger

_LOOK_S = 0.2
_log = logging.getLogger("harness.nightly")


class CellState(NamedTuple):
    """What is known of a cell while the nightly runs."""

    cell: str
    what: str
    """`waiting`, `running`, or how it ended."""
    where: str = ""
    attempt: int = 1
    seconds: float = 0.0
    said: str = ""
    """What it printed last, or why it ended so."""


class Board(Protocol):
    """Where the states of all cells are shown."""

    def show(self, states: Sequence[CellState]) -> None:
        """Show how it stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A cell at work."""

    cell: Cell
    attempt: Attempt
    process: CellProcess
    gpus: tuple[Gpu, ...]
    lock: int
    since: float


class Errand(NamedTuple):
    """One attempt that is to be made."""

    cell: Cell
    purpose: Purpose
    number: int


class Runner:
    """Runs errands; a context, at whose end nothing that it started is left."""

    program: Sequence[str] = HARNESS

    def __init__(self, place: Place, ledger: Ledger, slots: Slots, board: Board) -> None:
        """Run nothing yet."""
        self._place, self._ledger, self._slots, self._board = place, ledger, slots, board
        self._running: list[Running] = []
        self._states: dict[str, CellState] = {}

    def run(self, cells: Sequence[Cell], *, share: int) -> None:
        """Run every cell that has not ended in this night, and again what may pass.

        Args:
            cells: in the order in which they are begun; those with most GPUs come first.
            share: how many cells without GPUs share the cores.

        Raises:
            StageError: the ledger cannot be written.
        """
        self._states |= {cell.name: CellState(cell.name, "waiting") for cell in cells}
        waiting = [errand for cell in cells if (errand := self._next(cell)) is not None]
        self.make(sorted(waiting, key=lambda one: -one.cell.gpus), share=share)

    def make(self, errands: Sequence[Errand], *, share: int) -> None:
        """Make attempts, and those that are due after them."""
        waiting = list(errands)
        try:
            while waiting or self._running:
                for errand in list(waiting):
                    if self._may_start(errand, share):
                        waiting.remove(errand)
                waiting += self._ended()
                self._board.show(self._now())
                if waiting or self._running:
                    time.sleep(_LOOK_S)
        finally:
            self._stop()

    def _next(self, cell: Cell) -> Errand | None:
        """Return the attempt that a cell is due; None where it has ended or cannot run here."""
        wanted = due(self._place, cell, self._ledger.rows())
        if wanted is None:
            self._ran_before(cell)
            return None
        if why := self._slots.why_never(cell):
            self._keep(row_of_none(self._place, cell, why))
            return None
        return Errand(cell, *wanted)

    def _ran_before(self, cell: Cell) -> None:
        rows = [
            r for r in self._ledger.rows() if (r.cell, r.night) == (cell.name, self._place.night)
        ]
        last = rows[-1]
        _log.info("nightly: %s has ended %s in this night already", cell.name, last.ending)
        self._states[cell.name] = _ended(last)

    def _may_start(self, errand: Errand, share: int) -> bool:
        """Start an attempt if there is room for it and nobody else is at the cell.

        Returns:
            Whether it waits no more: it was started, or the other one has brought it to its end.
        """
        cell = errand.cell
        gpus = self._slots.take(cell)
        if gpus is None:
            return False
        lock = lock_cell(self._place, cell.name)
        if lock is None:
            self._slots.give_back(gpus)
            why = "another nightly, or what is left of one, is at it"
            self._states[cell.name] = CellState(cell.name, "elsewhere", said=why)
            return False
        wanted = self._still_due(errand)
        if wanted is not None:
            self._start(wanted, gpus, lock, share)
            return True
        self._slots.give_back(gpus)
        os.close(lock)
        self._ran_before(cell)
        return True

    def _still_due(self, errand: Errand) -> Errand | None:
        """Return what is due of a cell whose lock is held: others may have been at it, or died."""
        cell = errand.cell
        for row in rows_lost(self._place, cell, self._ledger.rows()):
            self._keep(row)
        rows = self._ledger.rows()
        if errand.purpose is Purpose.CONFIRMATION:
            which = errand.purpose, errand.number
            return None if is_recorded(rows, self._place.night, cell.name, which) else errand
        wanted = due(self._place, cell, rows)
        return None if wanted is None else Errand(cell, *wanted)

    def _start(self, errand: Errand, gpus: tuple[Gpu, ...], lock: int, share: int) -> None:
        cell, place = errand.cell, self._place
        which = errand.purpose, errand.number
        run_dir = place.run_dir(cell.name, *which)
        prepare(place, cell, *which)
        attempt = begin(place, cell.name, *which)
        log = place.attempt(cell.name, *which).with_suffix(".log")
        process = CellProcess(
            [*self.program, *cell.command, f"--run-dir={run_dir}"],
            log,
            gpus=[gpu.place for gpu in gpus],
            share=1 if cell.gpus else share,
            lock=lock,
        )
        self._running.append(
            Running(
                cell=cell,
                attempt=attempt,
                process=process,
                gpus=gpus,
                lock=lock,
                since=time.monotonic(),
            )
        )
        _log.info("nightly: %s begins (%s), log: %s", cell.name, _where(gpus), log)

    def _ended(self) -> list[Errand]:
        """Write the rows of what has ended, and return what is due after it."""
        following = []
        for one in list(self._running):
            code = one.process.exit_code
            if code is None:
                continue
            self._running.remove(one)
            row = row_of(self._place, one.cell, end(self._place, one.attempt, code))
            self._keep(row)
            self._slots.give_back(one.gpus)
            os.close(one.lock)
            errand = self._after(one) if may_pass_at_once(row) else None
            following += [errand] if errand else []
        return following

    def _after(self, one: Running) -> Errand | None:
        """Return the retry of a cell that has ended; a refusal is for a person to mend."""
        wanted = due(self._place, one.cell, self._ledger.rows())
        if one.attempt.purpose is Purpose.CONFIRMATION or wanted is None:
            return None
        if wanted[1] <= one.attempt.number:
            return None
        _log.info("nightly: %s is run again, for what failed may pass", one.cell.name)
        self._states[one.cell.name] = CellState(one.cell.name, "waiting", attempt=wanted[1])
        return Errand(one.cell, *wanted)

    def _keep(self, row: NightRow) -> None:
        self._ledger.append(row)
        self._states[row.cell] = _ended(row)
        _log.info("nightly: %s %s%s: %s", row.cell, row.ending, _attempt(row), said(row))

    def _now(self) -> list[CellState]:
        for one in self._running:
            self._states[one.cell.name] = CellState(
                cell=one.cell.name,
                what="confirming" if one.attempt.purpose is Purpose.CONFIRMATION else "running",
                where=_where(one.gpus),
                attempt=one.attempt.number,
                seconds=time.monotonic() - one.since,
                said=one.process.last_line(),
            )
        return list(self._states.values())

    def _stop(self) -> None:
        """End what runs, and wait until each has stopped what it started."""
        for one in self._running:
            one.process.tell_to_end()
        for one in self._running:
            one.process.wait()
            os.close(one.lock)
        self._running.clear()


def _ended(row: NightRow) -> CellState:
    return CellState(row.cell, row.ending, attempt=row.attempt, said=said(row))


def _attempt(row: NightRow) -> str:
    if row.purpose is Purpose.CONFIRMATION:
        return " when it was run again to confirm an alarm"
    return f" in attempt {row.attempt}" if row.attempt > 1 else ""


def _where(gpus: Sequence[Gpu]) -> str:
    return f"GPU {','.join(gpu.place for gpu in gpus)}" if gpus else "CPU"
