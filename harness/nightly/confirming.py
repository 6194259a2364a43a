"""The run that confirms an alarm: the same command on the same bytes, in a directory of its own.

A cell that makes its checkpoint gets what its run has made, as links to the same files, so that the
same bytes are served and scored anew. A checkpoint that was made elsewhere is where it was.
"""

import os
import shutil
from pathlib import Path

from harness.artifacts.nights import Purpose
from harness.nightly.matrix import Cell
from harness.nightly.places import Place
from harness.rundir import CHAIN_FILE, LOCK_FILE, RECIPE_FILE, TIMES_FILE
from harness.runs import PLAN_FILE
from harness.stages import CALIBRATE, EXPORT, VERIFY

_MADE = (
    *(CALIBRATE.file, *CALIBRATE.outputs, EXPORT.file, *EXPORT.outputs, VERIFY.file, PLAN_FILE),
    *(CHAIN_FILE, TIMES_FILE, RECIPE_FILE),
)
"""What a run has up to its checkpoint; the recipe comes last, for without it there is no run."""


def prepare(place: Place, cell: Cell, purpose: Purpose, number: int) -> None:
    """Give a confirmation what the run that it confirms has made.

    Raises:
        OSError: the system refused.
    """
    into = place.run_dir(cell.name, purpose, number)
    if purpose is not Purpose.CONFIRMATION or cell.checkpoint is not None:
        return
    if (into / RECIPE_FILE).exists():  # it goes on
        return
    into.mkdir(parents=True, exist_ok=True)
    (into / LOCK_FILE).touch()  # a file of its own: who locks one of two links locks both
    made = place.run_dir(cell.name, Purpose.REGULAR)
    for name in _MADE:
        _share(made / name, into / name)


def _share(file: Path, into: Path) -> None:
    if file.is_dir():
        into.mkdir(exist_ok=True)
        for one in file.iterdir():
            _share(one, into / one.name)
    elif file.exists():
        into.unlink(missing_ok=True)
        try:
            os.link(file, into)
        except OSError:  # a file system without links
            shutil.copyfile(file, into)
