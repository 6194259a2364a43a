"""A whole night: run the cells of a matrix here, or gather what was run elsewhere."""

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts.nights import NightRow, Purpose
from harness.nightly.alarming import alarms_of, confirm, notes_of
from harness.nightly.attempts import find, lock_cell, row_of_none, rows_lost
from harness.nightly.board import board_for
from harness.nightly.matrix import Cell, Matrix
from harness.nightly.outcome import NightOutcome, outcomes_of
from harness.nightly.places import Place
from harness.nightly.running import Runner
from harness.nightly.slots import Slots, gpus_here
from harness.nights import Ledger, not_recorded, open_ledger

_LEFT_BEHIND = ("checkpoint*", "calibration.safetensors", "*.lock")
"""Of a run that is gathered: weights, which no report needs."""
_log = logging.getLogger("harness.nightly")


def run_night(matrix: Matrix, cells: Sequence[Cell], place: Place) -> NightOutcome:
    """Run cells on this machine, those of them that have not ended in this night.

    Raises:
        UsageError: the folder cannot be written to.
        StageError: the ledger cannot be written.
    """
    ledger = open_ledger(place.out)
    slots = Slots(gpus_here() if any(cell.gpus for cell in cells) else (), matrix.slots)
    with board_for() as board:
        runner = Runner(place, ledger, slots, board)
        runner.run(cells, share=_share(matrix, cells))
        confirm(cells, place, ledger, runner)
    return _outcome(matrix, cells, place, ledger)


def collect(
    matrix: Matrix, cells: Sequence[Cell], place: Place, sources: Sequence[Path]
) -> NightOutcome:
    """Gather the rows and reports of runs that were made elsewhere; nothing is run.

    Args:
        matrix: that was run.
        cells: of it.
        place: where they are gathered.
        sources: folders of other machines' nightlies; none where all share one.

    Raises:
        RunDirectoryError: a source holds no ledger, or lines of one were changed.
    """
    ledger = open_ledger(place.out)
    for source in sources:
        added = ledger.merge(source)
        _log.info("nightly: %d rows of '%s' are new", added, source)
        for cell in cells:
            _fetch(Place(source, place.night).cell(cell.name), place.cell(cell.name))
    for cell in cells:
        _add_lost(place, cell, ledger)
    return _outcome(matrix, cells, place, ledger)


def _add_lost(place: Place, cell: Cell, ledger: Ledger) -> None:
    """Write the rows that ended nightlies did not, unless one is at the cell, which writes them."""
    lock = lock_cell(place, cell.name) if place.cell(cell.name).exists() else None
    if lock is None:
        return
    try:
        for row in rows_lost(place, cell, ledger.rows()):
            ledger.append(row)
    finally:
        os.close(lock)


def _share(matrix: Matrix, cells: Sequence[Cell]) -> int:
    """Return how many cells without GPUs share the cores."""
    return max(1, min(matrix.slots, sum(not cell.gpus for cell in cells)))


def _outcome(matrix: Matrix, cells: Sequence[Cell], place: Place, ledger: Ledger) -> NightOutcome:
    """Return what the ledger says of a night; a cell of which it says nothing gets its row."""
    by_name = {cell.name: cell for cell in cells}
    for name in not_recorded(by_name, ledger.rows(), place.night):
        ledger.append(_none(place, by_name[name]))
    rows = ledger.rows()
    return NightOutcome(
        matrix=matrix.name,
        night=place.night,
        cells=tuple(outcomes_of(by_name, place.night, rows)),
        alarms=alarms_of(rows, cells, place.night),
        notes=tuple(notes_of(rows, cells, matrix, place)),
    )


def _none(place: Place, cell: Cell) -> NightRow:
    begun = find(place, cell.name, Purpose.REGULAR, 1)
    why = "it has no row in this night"
    if begun is not None and begun.exit_code is None:
        why = f"begun on {begun.host} at {begun.started}, and has not come to its end"
    return row_of_none(place, cell, why)


def _fetch(theirs: Path, ours: Path) -> None:
    """Copy what a cell left elsewhere, but for weights, where nothing of it is here."""
    if theirs.is_dir() and not ours.exists():
        partial = ours.with_name(f".{ours.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(theirs, partial, ignore=shutil.ignore_patterns(*_LEFT_BEHIND))
        partial.rename(ours)
