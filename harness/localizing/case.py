"""What there is of a run: its records, the model it was made from, its checkpoint.

Everything is read as far as it is there. What is not is noted, and the claim does not hold for it.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.artifacts import (
    CalibrationStats,
    DeploymentsTrial,
    Inventory,
    QuantPlan,
    Recipe,
    SmokeSet,
    Trial,
    made_from,
)
from harness.comparing.sides import Side, read_side
from harness.errors import HarnessError, ReasonCode, RunDirectoryError, UsageError
from harness.models import MANIFEST_FILE, Source, read_inventory
from harness.preflight.unquantized import open_unquantized
from harness.reading import read_json_object
from harness.recipe import load_smoke, plan
from harness.rundir import process_in
from harness.shipped import CANARY
from harness.stages import CALIBRATE

_MODEL = "model"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unquantized:
    """The unquantized model."""

    source: Source
    inventory: Inventory


@dataclass(frozen=True, kw_only=True, slots=True)
class Made(Unquantized):
    """The same, and what the recipe makes of it."""

    recipe: Recipe
    plan: QuantPlan
    """Made anew from the recipe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A run that is looked into."""

    side: Side
    trial: Trial
    model: Unquantized | None
    """None where it is not here any more, or is another; `Made` where the run made the files."""
    recorded: CalibrationStats | None
    """What the run says that calibration measured."""
    folder: Path | None
    """Of the checkpoint; None where the run made none."""
    prompts: SmokeSet
    """Whose passages are read."""
    device: str
    unseen: tuple[str, ...]


def open_case(run: Path, device: str) -> Case:
    """Read what there is of the run in `run`.

    Raises:
        UsageError: it is no run of a checkpoint.
        RunDirectoryError: it is at work, or its recipe cannot be read.
    """
    if (process := process_in(run)) is not None:
        message = f"'{run}' is at work (process {process}). Wait for its end, or stop it."
        raise RunDirectoryError(message, reason=ReasonCode.RUN_DIRECTORY_BUSY)
    side = read_side(run)
    trial = side.recipe
    if trial is None or isinstance(trial, DeploymentsTrial):
        message = (
            f"'{run}' is no run of a checkpoint: scores or servers alone show no hop. Name the run "
            "directory of 'harness e2e', 'harness quantize' or 'harness gate CHECKPOINT'."
        )
        raise UsageError(message)
    unseen = [f"records of the run: {note}" for note in side.notes]
    folder = side.folder if side.folder is not None and side.folder.is_dir() else None
    return Case(
        side=side,
        trial=trial,
        model=_model(run, trial, folder, unseen),
        recorded=side.nouns.get(CALIBRATE.name),
        folder=folder,
        prompts=trial.suite.smoke or load_smoke(CANARY if trial.model == CANARY else "general"),
        device=device,
        unseen=tuple(unseen),
    )


def _model(run: Path, trial: Trial, folder: Path | None, unseen: list[str]) -> Unquantized | None:
    """Open the model; one that is not that of the run says nothing about it."""
    try:
        source = open_unquantized(trial.model, trial.revision)
        inventory = read_inventory(source)
        planned = plan(trial, inventory) if isinstance(trial, Recipe) else None
    except HarnessError as error:
        unseen.append(f"the source, and all that is made of it: {error}")
        return None
    recorded = (made_from(run / CALIBRATE.file) or {}).get(_MODEL) or _source_digest(folder)
    if recorded is not None and recorded != source.digest:
        unseen.append(
            f"the source, and all that is made of it: '{trial.model}' is not the model of the "
            f"run any more (its digest is {source.digest:.12} and was {recorded:.12})"
        )
        return None
    if planned is None or not isinstance(trial, Recipe):
        unseen.append(
            "ranges and files beside what was to be made: the files were made elsewhere, and "
            f"nothing says how. 'harness verify {folder} --source {trial.model}' compares weights"
        )
        return Unquantized(source=source, inventory=inventory)
    return Made(source=source, inventory=inventory, recipe=trial, plan=planned)


def _source_digest(folder: Path | None) -> str | None:
    """Return what the manifest of the checkpoint says that it was made from."""
    if folder is None:
        return None
    try:
        found = read_json_object(folder / MANIFEST_FILE).get("source_digest")
    except HarnessError:
        return None
    return found if isinstance(found, str) else None
