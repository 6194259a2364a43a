"""What trackers that somebody asked for are told: a run's verdict, or the rows of a night."""

from pathlib import Path

from harness.artifacts import Purpose
from harness.errors import UsageError
from harness.nightly import NightOutcome, Place
from harness.nights import CellRun, open_ledger, row_of_run
from harness.rundir import read_recipe
from harness.tracking import Trackers, check_trackers, track, tracked_run

_PROJECT = "harness"
"""Of runs that are part of no nightly."""


def trackers_of(mlflow: str | None, wandb: Path | None, *, refused_by: str = "") -> Trackers:
    """Return the trackers that are to be told.

    Args:
        mlflow: as typed.
        wandb: as typed.
        refused_by: options that were typed too, and with which there is nothing to tell.

    Raises:
        UsageError: there are such.
        PrerequisiteError: a tracker's package is not installed.
    """
    trackers = Trackers(mlflow, wandb)
    for name, _ in trackers.asked():
        if refused_by:
            message = f"--{name} does not go with {refused_by}. Leave one of them out."
            raise UsageError(message)
    check_trackers(trackers)
    return trackers


def track_night(trackers: Trackers, night: NightOutcome, place: Place) -> None:
    """Tell of every row of a night."""
    if any(trackers.asked()):
        names = {one.cell for one in night.cells}
        rows = [r for r in open_ledger(place.out).rows() if r.night == place.night]
        runs = [tracked_run(r, place.out, night.told) for r in rows if r.cell in names]
        track(trackers, night.matrix, runs)


def track_run(trackers: Trackers, run_dir: Path) -> None:
    """Tell of the run in a directory."""
    if any(trackers.asked()):
        recipe = read_recipe(run_dir)
        name = f"{recipe.name} of {Path(recipe.model).name}"
        run = CellRun(cell=name, night="", attempt=1, purpose=Purpose.REGULAR, exit_code=None)
        row = row_of_run(run_dir, run)
        track(trackers, _PROJECT, [tracked_run(row, run_dir, name=name)])
