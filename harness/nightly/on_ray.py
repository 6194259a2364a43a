"""A whole night on a Ray cluster, whose machines share the matrix and the folder of nights."""

import sys
from collections.abc import Sequence

from harness.nightly.attempts import row_of_none
from harness.nightly.matrix import Cell, Matrix
from harness.nightly.night import collect
from harness.nightly.outcome import NightOutcome
from harness.nightly.places import Place
from harness.nightly.placing import Placing, refuse_unknown
from harness.nightly.ray import RayWork, run_on_ray
from harness.nights import open_ledger


def run_night_on_ray(
    matrix: Matrix, cells: Sequence[Cell], placing: Placing, address: str
) -> NightOutcome:
    """Run cells as jobs of Ray, wait for them, and collect.

    Raises:
        UsageError: a setting is unknown, or what the cluster calls a hardware was not said.
        PrerequisiteError: Ray is not installed, or nothing answers at the address.
        StageError: the head went away, or the ledger cannot be written.
    """
    refuse_unknown(placing.settings, (), "Ray")
    works = [
        RayWork(
            cell=cell.name,
            command=(sys.executable, "-m", "harness", *placing.arguments(only=cell.name)),
            folder=placing.folder,
            gpus=cell.gpus,
            hardware=placing.hardware(cell),
        )
        for cell in cells
    ]
    endings = run_on_ray(address, works, "\n".join([str(placing.matrix), *placing.where]))
    place = Place(placing.out, placing.night)
    ledger = open_ledger(place.out)
    known = {row.cell for row in ledger.rows() if row.night == place.night}
    for cell in cells:
        why = endings[cell.name].message
        if why and cell.name not in known:
            ledger.append(row_of_none(place, cell, why))
    return collect(matrix, cells, place, ())
