"""Resolve what was typed against the machine, the model and the data; list every problem at once.

This is the only place, besides the pipeline, that knows several rooms: each room says what it
needs, preflight asks them all. Nothing is written.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import score
from harness.artifacts import Inventory, QuantPlan, Recipe, Suite
from harness.calibrate import Extent, check_data, measure_extent
from harness.errors import PrerequisiteError, UsageError
from harness.export import check_target, ignored_modules, required_bytes
from harness.gate import check_margins
from harness.models import Source, open_source, read_inventory
from harness.preflight.engine import choose_engine, demands_of, resolve_device
from harness.preflight.given import Baseline, check_baseline, open_baseline
from harness.preflight.problems import Problems
from harness.preflight.unquantized import refuse_quantized
from harness.preflight.waived import check_waivers
from harness.recipe import Request, load_recipe, plan
from harness.serve import check_served

GIB = 1 << 30
RECORDS_BYTES = 8 << 20
"""Room for what a run writes besides the checkpoint: statistics, samples, reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run that is ready to start: the recipe with every `auto` resolved, and its model."""

    recipe: Recipe
    source: Source
    inventory: Inventory
    plan: QuantPlan
    extent: Extent
    """How much text will calibrate it."""
    baseline: Baseline
    """What it is compared with; the source itself where nothing else was named."""

    @property
    def scheme(self) -> str:
        """Return the scheme of the checkpoint that is made."""
        return self.plan.scheme


def preflight(request: Request, *, into: Path | None = None, scored: bool = True) -> Job:
    """Resolve and check `request`.

    Args:
        request: what was typed.
        into: where the run will write; its disk is checked.
        scored: whether the checkpoint will be served and scored too.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = Problems()
    recipe = problems.attempt(lambda: _with_device(load_recipe(request)))
    source = problems.attempt(lambda: _unquantized(request))
    if recipe is not None and scored:
        check_questions(problems, recipe.suite)
        waivers = recipe.waivers
        problems.attempt(lambda: check_waivers(waivers))
    if recipe is None or source is None:
        if recipe is not None:
            spec = recipe.calibration
            problems.attempt(lambda: check_data(spec))
        problems.raise_any()
        raise AssertionError  # one of the two attempts above has failed
    named = request.baseline
    other = problems.attempt(lambda: open_baseline(named)) if named else source
    job = _resolve(problems, recipe, source, scored=scored)
    if job is not None and other is not None:
        job = dataclasses.replace(job, baseline=other)
        if scored:
            problems.attempt(lambda: check_baseline(other, source, job.recipe, is_its_model=True))
    if job is not None:
        problems.attempt(lambda: _check_room(job, into))
    problems.raise_any()
    if job is None:
        raise AssertionError  # raise_any has raised
    return job


def _unquantized(request: Request) -> Source:
    source = open_source(request.model, revision=request.revision)
    refuse_quantized(source)
    return source


def check_questions(problems: Problems, suite: Suite) -> None:
    """Note what is wrong with a suite's tasks and margins."""
    problems.attempt(lambda: score.check_suite(suite))
    problems.attempt(lambda: check_margins(suite))


def _resolve(problems: Problems, recipe: Recipe, source: Source, *, scored: bool) -> Job | None:
    """Fit the recipe to the model, its data and the engine; None where something is wrong."""
    extent = problems.attempt(lambda: measure_extent(recipe.calibration, source))
    engine = recipe.engine
    resolved = problems.attempt(lambda: choose_engine(engine, source)) if scored else engine
    inventory = problems.attempt(lambda: read_inventory(source))
    if inventory is None:
        return None
    planned = problems.attempt(lambda: plan(recipe, inventory))
    if planned is None or extent is None or resolved is None:
        return None
    problems.attempt(lambda: ignored_modules(planned))
    if scored:
        problems.attempt(lambda: check_served(resolved, demands_of(planned)))
    recipe = dataclasses.replace(recipe, engine=resolved)
    return Job(
        recipe=recipe,
        source=source,
        inventory=inventory,
        plan=planned,
        extent=extent,
        baseline=source,
    )


def _with_device(recipe: Recipe) -> Recipe:
    device = resolve_device(recipe.device, ranks=recipe.ranks)
    if recipe.memory.gpu_bytes is not None and not device.startswith("cuda"):
        message = f"--gpu-memory bounds a GPU, and the run is on '{device}'. Leave it out."
        raise UsageError(message)
    engine = dataclasses.replace(recipe.engine, device=device)
    return dataclasses.replace(recipe, device=device, engine=engine)


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
