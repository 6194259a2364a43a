"""What would stop each cell of a matrix, found by the preflight of its command; nothing is run."""

from collections.abc import Sequence
from typing import NamedTuple

from harness.artifacts.nights import Purpose
from harness.errors import HarnessError
from harness.nightly.matrix import Cell
from harness.nightly.places import Place
from harness.nightly.slots import Slots, gpus_here
from harness.preflight import preflight, preflight_gate
from harness.recipe import load_recipe, load_trial


class Checked(NamedTuple):
    """What was found of a cell."""

    cell: str
    problem: str
    """Empty where nothing is wrong."""
    note: str
    """What was left out of checking, and why."""


def check_cells(cells: Sequence[Cell], place: Place) -> list[Checked]:
    """Check every cell; one that this machine is not for, by its recipe and suite alone."""
    slots = Slots(gpus_here() if any(cell.gpus for cell in cells) else (), 1)
    return [_check(cell, place, slots.why_never(cell)) for cell in cells]


def _check(cell: Cell, place: Place, why_never: str) -> Checked:
    try:
        if why_never:
            _load(cell)
        else:
            _resolve(cell, place)
    except HarnessError as error:
        return Checked(cell.name, str(error), why_never)
    return Checked(cell.name, "", why_never)


def _load(cell: Cell) -> None:
    if cell.checkpoint is None:
        load_recipe(cell.request)
    else:
        load_trial(cell.request, cell.checkpoint)


def _resolve(cell: Cell, place: Place) -> None:
    into = place.run_dir(cell.name, Purpose.REGULAR)
    if cell.checkpoint is None:
        preflight(cell.request, into=into)
    else:
        preflight_gate(cell.request, cell.checkpoint, into=into)
