"""Run every cell of a matrix in one night, each as a process of its own."""

from harness.nightly.dry import Checked, check_cells
from harness.nightly.matrix import Cell, Matrix, load_matrix
from harness.nightly.night import collect, run_night
from harness.nightly.outcome import CellOutcome, NightOutcome
from harness.nightly.places import Place, this_night
from harness.nightly.told import (
    add_to_summary,
    annotations_of,
    in_github,
    junit_of,
    lines_of,
    write_reports,
)
from harness.nightly.workflow import workflow_of

__all__ = [
    "Cell",
    "CellOutcome",
    "Checked",
    "Matrix",
    "NightOutcome",
    "Place",
    "add_to_summary",
    "annotations_of",
    "check_cells",
    "collect",
    "in_github",
    "junit_of",
    "lines_of",
    "load_matrix",
    "run_night",
    "this_night",
    "workflow_of",
    "write_reports",
]
