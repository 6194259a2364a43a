"""All of tuning on one screen: units, one pass, the frontier, recipes as a whole, the gate."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness import doors
from harness.artifacts import (
    LEFT,
    Attempt,
    Frontier,
    Point,
    RunRecord,
    Sensitivities,
    Tuning,
    save,
)
from harness.errors import ReasonCode, RunDirectoryError, UsageError
from harness.report.frontier import plot_frontier
from harness.tuning.goal import Wanted
from harness.tuning.measuring import frontier_of_recipes, sensitivities_of
from harness.tuning.proving import attempt_of, run_gate, run_name, smallest_with_go
from harness.tuning.rules import recipe_for
from harness.tuning.streams import fits_in_memory
from harness.tuning.work import LOCK_FILE, RUNS_FOLDER, Work, ends_of, prepared
from harness.tuning.writing import recipe_text, write_recipe

PLOT_FILE = "frontier.svg"
RECIPE_FILE = "recipe.yaml"
TUNING_FILE = "tuning.json"
RECIPES_FOLDER = "recipes"


class TuningPlan(NamedTuple):
    """What tuning will do, before any weight is read."""

    run_dir: str
    num_units: int
    refused: dict[str, int]
    """Why some units cannot have a format, with how many."""
    least_bits: float
    most_bits: float
    num_streams: int
    layer_runs: int
    """Of all texts through a layer."""
    num_tokens: int
    num_texts: int
    streams: str
    """What the streams take."""
    in_memory: bool


class Ended(NamedTuple):
    """A tuning that has come to its end."""

    folder: Path
    frontier: Frontier
    tuning: Tuning
    record: RunRecord
    """Of the run of `tuning.best`."""


def plan_tuning(typed: Wanted, folder: Path | None) -> TuningPlan:
    """Resolve, check and estimate.

    Raises:
        UsageError: everything that `tune` would refuse before it reads a weight.
    """
    work = prepared(typed, folder)
    units, per_layer = work.space.units, dict[int, int]()
    for unit in units:
        per_layer[unit.layer] = per_layer.get(unit.layer, 0) + len(unit.options)
    num_layers = len(work.tuned.streamed())
    demand = work.tuned.demand(len(work.options), work.num_tokens)
    fewest, most = ends_of(work)
    return TuningPlan(
        run_dir=str(work.folder),
        num_units=len(units),
        refused=dict(work.space.refused),
        least_bits=fewest,
        most_bits=most,
        num_streams=demand.num_streams,
        layer_runs=sum(count * (num_layers - at) for at, count in per_layer.items())
        + 2 * num_layers,
        num_tokens=demand.num_tokens,
        num_texts=len(work.texts.sensing),
        streams=str(demand),
        in_memory=fits_in_memory(demand, work.folder, work.job.recipe.memory.host_bytes),
    )


def tune(typed: Wanted, folder: Path | None) -> Ended:
    """Find the recipe that was asked for, and put it to the gate.

    Raises:
        HarnessError: something that was typed is wrong, or a part of the work failed; typed again,
            it goes on where it stopped.
    """
    work = prepared(typed, folder)
    demand = work.tuned.demand(len(work.options), work.num_tokens)
    fits_in_memory(demand, work.folder, work.job.recipe.memory.host_bytes)
    with _locked(work.folder):
        found = sensitivities_of(work)
        for name in (RECIPE_FILE, PLOT_FILE, TUNING_FILE):  # of another goal
            (work.folder / name).unlink(missing_ok=True)
        frontier = frontier_of_recipes(work, found)
        return _proven(work, found, frontier)


def _proven(work: Work, found: Sensitivities, frontier: Frontier) -> Ended:
    """Put the recipe of the budget to the gate, or find the smallest that passes it."""
    made = frontier.made()
    capacity = work.typed.goal.capacity(found.num_weights)
    fitting = [one for one in made if one.num_bits <= capacity]
    if not fitting:
        message = "no recipe kept its output finite. Name other formats with --formats."
        raise UsageError(message)
    attempts: list[Attempt] = []
    records: dict[str, RunRecord] = {}

    def attempt(point: Point) -> Attempt:
        name = run_name(point)
        recipe = work.folder / RECIPES_FOLDER / f"{name}.yaml"
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe_for(work.space, point.choice, work.job.inventory), point, recipe)
        run = work.folder / RUNS_FOLDER / name
        record = run_gate(work.typed.request, recipe, run)
        tried = attempt_of(point, recipe, run, record)
        attempts.append(tried)
        records[tried.run] = record
        return tried

    if work.typed.goal.bits is not None:  # `made` falls from point to point
        chosen, best = fitting[-1], attempt(fitting[-1])
    else:
        chosen, best = smallest_with_go(made, attempt)
    if best.decision is not None:  # else nothing is known of it
        recipe = recipe_for(work.space, chosen.choice, work.job.inventory)
        doors.write_atomically(work.folder / RECIPE_FILE, recipe_text(recipe, chosen))
    formats = (*work.typed.formats, *([LEFT] if work.typed.may_leave else []))
    tuning = Tuning(
        model=work.job.recipe.model,
        goal=str(work.typed.goal),
        formats=formats,
        chosen=chosen,
        attempts=tuple(attempts),
        best=best,
    )
    save(tuning, work.folder / TUNING_FILE)
    doors.write_atomically(work.folder / PLOT_FILE, plot_frontier(frontier, chosen))
    return Ended(work.folder, frontier, tuning, records[best.run])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time tune in a folder.

    Raises:
        RunDirectoryError: another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = doors.open_regular(folder / LOCK_FILE, create=True)
    try:
        _take(lock, folder)
        yield
    finally:
        os.close(lock)


def _take(lock: int, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"'{folder}' is in use by another tuning. Wait for it, or name another folder."
        raise RunDirectoryError(message, reason=ReasonCode.RUN_DIRECTORY_BUSY) from None
