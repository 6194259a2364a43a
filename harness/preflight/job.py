"""Resolve what was typed against the machine, the model and the data; list every problem at once.

This is the only place, besides the pipeline, that knows several rooms: each room says what it
needs, preflight asks them all. Nothing is written.
"""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from harness.artifacts import Inventory, QuantPlan, Recipe, Suite
from harness.calibrate import Extent, check_data, measure_extent
from harness.errors import PrerequisiteError, UsageError
from harness.export import check_target, ignored_modules, required_bytes
from harness.gate import check_margins
from harness.models import Source, open_source, read_inventory
from harness.recipe import Request, load_recipe, plan
from harness.score import check_suite
from harness.serve import check_engine

T = TypeVar("T")
GIB = 1 << 30
RECORDS_BYTES = 8 << 20
"""Room for what a run writes besides the checkpoint: statistics, samples, reports."""
REFERENCE_LIMIT_BYTES = GIB
"""Larger models are too slow for the in-process engine to be chosen by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run that is ready to start: the recipe with every `auto` resolved, and its model."""

    recipe: Recipe
    source: Source
    inventory: Inventory
    plan: QuantPlan
    extent: Extent
    """How much text will calibrate it."""


class _Problems:
    """Runs checks one after another and keeps what they complain about."""

    def __init__(self) -> None:
        self.found: list[UsageError] = []

    def attempt(self, check: Callable[[], T]) -> T | None:
        try:
            return check()
        except UsageError as error:
            self.found.append(error)
            return None

    def raise_any(self) -> None:
        if not self.found:
            return
        if len(self.found) == 1:
            raise self.found[0]
        lines = "\n".join(f"  {n}. {error}" for n, error in enumerate(self.found, start=1))
        message = f"{len(self.found)} problems, nothing was started:\n{lines}"
        raise UsageError(message, reason=self.found[0].reason)


def preflight(request: Request, *, into: Path | None = None, scored: bool = True) -> Job:
    """Resolve and check `request`.

    Args:
        request: what was typed.
        into: where the run will write; its disk is checked.
        scored: whether the checkpoint will be served and scored too.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = _Problems()
    recipe = problems.attempt(lambda: _with_device(load_recipe(request)))
    source = problems.attempt(lambda: open_source(request.model, revision=request.revision))
    if recipe is not None and scored:
        _check_suite(problems, recipe.suite)
    if recipe is None or source is None:
        if recipe is not None:
            spec = recipe.calibration
            problems.attempt(lambda: check_data(spec))
        problems.raise_any()
        raise AssertionError  # one of the two attempts above has failed
    job = _resolve(problems, recipe, source, scored=scored)
    if job is not None:
        problems.attempt(lambda: _check_room(job, into))
    problems.raise_any()
    if job is None:
        raise AssertionError  # raise_any has raised
    return job


def _check_suite(problems: _Problems, suite: Suite) -> None:
    problems.attempt(lambda: check_suite(suite))
    problems.attempt(lambda: check_margins(suite))


def _resolve(problems: _Problems, recipe: Recipe, source: Source, *, scored: bool) -> Job | None:
    """Fit the recipe to the model, its data and the engine; None where something is wrong."""
    extent = problems.attempt(lambda: measure_extent(recipe.calibration, source))
    resolved = problems.attempt(lambda: _with_engine(recipe, source)) if scored else recipe
    inventory = problems.attempt(lambda: read_inventory(source))
    if inventory is None:
        return None
    planned = problems.attempt(lambda: plan(recipe, inventory))
    if planned is None or extent is None or resolved is None:
        return None
    problems.attempt(lambda: ignored_modules(planned))
    return Job(recipe=resolved, source=source, inventory=inventory, plan=planned, extent=extent)


def _with_device(recipe: Recipe) -> Recipe:
    device = resolve_device(recipe.device)
    engine = dataclasses.replace(recipe.engine, device=device)
    return dataclasses.replace(recipe, device=device, engine=engine)


def resolve_device(device: str) -> str:
    """Return the torch device that `device` means; `auto` is a GPU where there is one.

    Raises:
        UsageError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        message = f"unknown device '{device}'. Type --device cpu or --device cuda."
        raise UsageError(message)
    if device.startswith("cuda") and not torch.cuda.is_available():
        message = f"--device {device}: torch {torch.__version__} finds no GPU. Type --device cpu."
        raise PrerequisiteError(message)
    return device


def _with_engine(recipe: Recipe, source: Source) -> Recipe:
    num_bytes = sum(header.num_bytes for header in source.tensors.values())
    name = recipe.engine.name
    if name == "auto":
        if num_bytes > REFERENCE_LIMIT_BYTES:
            message = (
                f"'{recipe.model}' holds {num_bytes / GIB:.1f} GiB, too much for the reference "
                "engine to be chosen by itself, and no vLLM engine is available in this version. "
                "Type --engine reference to serve it in process all the same, or use "
                "'harness quantize', which writes and verifies the checkpoint."
            )
            raise PrerequisiteError(message)
        name = "reference"
    engine = dataclasses.replace(recipe.engine, name=name)
    check_engine(engine)
    needed, free = 2 * num_bytes, psutil.virtual_memory().available
    if engine.device == "cpu" and needed > free:
        message = (
            f"the reference engine needs {needed / GIB:.1f} GiB of memory for '{recipe.model}' in "
            f"{engine.dtype}, {free / GIB:.1f} GiB are free. Use a machine with more memory."
        )
        raise PrerequisiteError(message)
    return dataclasses.replace(recipe, engine=engine)


def _check_room(job: Job, into: Path | None) -> None:
    target = into or Path("runs")
    check_target(job.source, target / "checkpoint")
    folder = target.absolute()
    while not folder.exists():
        folder = folder.parent
    needed = required_bytes(job.source, job.plan) + RECORDS_BYTES
    free = shutil.disk_usage(folder).free
    if needed > free:
        message = (
            f"the checkpoint needs {needed / GIB:.2f} GiB, the disk of '{folder}' has "
            f"{free / GIB:.2f} GiB free. Free some space, or give --run-dir on another disk."
        )
        raise PrerequisiteError(message)
