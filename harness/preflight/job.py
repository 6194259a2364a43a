"""Resolve what was typed against the machine, the model and the data; list every problem at once.

This is the only place, besides the pipeline, that knows several rooms: each room says what it
needs, preflight asks them all. Nothing is written.
"""

import dataclasses
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import doors, score
from harness.artifacts import Inventory, QuantPlan, Recipe, Suite, Waiver
from harness.baselines import check_writable
from harness.calibrate import Extent, check_data, measure_extent
from harness.engines import architectures_of, engines_for
from harness.errors import UsageError
from harness.export import check_target, ignored_modules, required_bytes
from harness.gate import check_margins
from harness.models import Source, read_inventory
from harness.nodes import ranks_here
from harness.preflight.asked import note_asked
from harness.preflight.budget import within_budget
from harness.preflight.devices import begin_on
from harness.preflight.engine import (
    check_answerable,
    check_widths,
    choose_engine,
    demands_of,
    resolve_device,
)
from harness.preflight.given import Baseline, check_baseline, open_baseline
from harness.preflight.nel_tasks import check_has_address, with_nel
from harness.preflight.problems import Problems
from harness.preflight.unquantized import open_unquantized
from harness.preflight.waived import check_waivers
from harness.recipe import Request, load_recipe, plan
from harness.serve import check_served

_log = logging.getLogger("harness.preflight")
_OWN = Path("runs", "new")
"""Stands for a run directory that gets its name later."""
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
    if recipe is not None and ranks_here(recipe.ranks) == 1:
        begin_on(recipe.device)
    opened = problems.attempt(lambda: open_unquantized(request.model, request.revision))
    if recipe is not None and opened is not None and scored:
        recipe = problems.attempt(partial(_in_time, recipe, request.budget, opened))
    if recipe is not None and scored:
        suite = check_questions(problems, recipe.suite, recipe.waivers)
        recipe = dataclasses.replace(recipe, suite=suite)
        problems.attempt(lambda: check_answerable(recipe.engine, recipe.suite))
    if recipe is not None and opened is None:
        spec = recipe.calibration
        problems.attempt(lambda: check_data(spec))
    source, named = problems.demand(opened), request.baseline
    other = problems.attempt(lambda: open_baseline(named)) if named else source
    job = _resolve(problems, problems.demand(recipe), source, scored=scored)
    if job is not None and other is not None:
        job = dataclasses.replace(job, baseline=other)
        if scored:
            problems.attempt(lambda: check_baseline(other, source, job.recipe, is_its_model=True))
    if job is not None:
        _check_ends(problems, job, into, scored=scored)
    problems.raise_any()
    return problems.demand(job)


def _in_time(recipe: Recipe, budget: str | None, source: Source) -> Recipe:
    return dataclasses.replace(recipe, suite=within_budget(recipe, budget, source))


def _check_ends(problems: Problems, job: Job, into: Path | None, *, scored: bool) -> None:
    """Note what would stop the run after hours: places to write, texts that cannot be made."""
    problems.attempt(lambda: _check_room(job, into))
    if scored:
        note_asked(problems, job.recipe.suite, job.source)
        if isinstance(job.baseline, Source):
            problems.attempt(check_writable)


def check_questions(problems: Problems, suite: Suite, waivers: tuple[Waiver, ...] = ()) -> Suite:
    """Note what is wrong with a suite's tasks and margins, and with waivers of its checks.

    Returned with what NeMo Evaluator tells of its tasks.
    """
    problems.note(problems.attempt(lambda: score.mistakes_of(suite)) or ())
    problems.attempt(lambda: check_margins(suite))
    problems.attempt(lambda: check_waivers(waivers))
    return with_nel(problems, suite)


def check_suite(suite: Suite, source: Source | None = None) -> Suite:
    """Return a suite with what NeMo Evaluator tells of its tasks; refuse one with mistakes.

    For a model too, where one is given. Who scores one arm compares nothing, so that margins are
    no matter.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = Problems()
    problems.note(problems.attempt(lambda: score.mistakes_of(suite)) or ())
    suite = with_nel(problems, suite)
    if source is not None:
        note_asked(problems, suite, source)
    problems.raise_any()
    return suite


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
    problems.attempt(lambda: _check_ranks(recipe, extent))
    problems.attempt(lambda: ignored_modules(planned))
    if scored:
        asked = dataclasses.replace(
            demands_of(planned), architectures=architectures_of(source.config)
        )
        problems.attempt(lambda: check_has_address(resolved, recipe.suite))
        problems.attempt(lambda: check_served(resolved, asked))
        problems.attempt(lambda: check_widths(resolved, planned))
    if not engines_for(demands_of(planned)):
        _log.warning(
            "preflight: no vLLM that harness was tested with loads this checkpoint (%s); only the "
            "reference engine is known to ('harness formats')",
            planned.scheme,
        )
    recipe = dataclasses.replace(recipe, engine=resolved)
    return Job(
        recipe=recipe,
        source=source,
        inventory=inventory,
        plan=planned,
        extent=extent,
        baseline=source,
    )


def _check_ranks(recipe: Recipe, extent: Extent) -> None:
    if recipe.ranks > extent.num_batches:
        message = (
            f"--ranks {recipe.ranks}: the calibration has {extent.num_batches} batches, and each "
            f"process takes one at least. Type at most --ranks {extent.num_batches}."
        )
        raise UsageError(message)


def _with_device(recipe: Recipe) -> Recipe:
    device = resolve_device(recipe.device, ranks=ranks_here(recipe.ranks))
    if recipe.memory.gpu_bytes is not None and not device.startswith("cuda"):
        message = f"--gpu-memory bounds a GPU, and the run is on '{device}'. Leave it out."
        raise UsageError(message)
    engine = dataclasses.replace(recipe.engine, device=device)
    return dataclasses.replace(recipe, device=device, engine=engine)


def check_written(into: Path | None, read: Iterable[Path], *, num_bytes: int = 0) -> None:
    """Refuse a run directory that cannot be written, or lies in or around a folder that is read.

    Args:
        into: the run directory; None for one of its own in `runs/`.
        read: folders of models, checkpoints and scores.
        num_bytes: what is written besides records.

    Raises:
        UsageError: with what to choose instead.
    """
    target = into or _OWN
    doors.check_apart(target, read)
    doors.check_folder(target, num_bytes=num_bytes + RECORDS_BYTES)


def read_by(baseline: Baseline) -> list[Path]:
    """Return the folder of a baseline; of scores that came as one file there is none."""
    return [baseline.path] if baseline.path.is_dir() else []


def _check_room(job: Job, into: Path | None) -> None:
    needed = required_bytes(job.source, job.plan)
    check_written(into, [job.source.path, *read_by(job.baseline)], num_bytes=needed)
    check_target(job.source, (into or _OWN) / "checkpoint")
