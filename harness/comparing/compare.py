"""Two runs beside each other: what came out differently, and what could have caused it."""

from collections.abc import Sequence
from pathlib import Path

from harness.artifacts import (
    ComparedRun,
    Part,
    Recipe,
    RunDifference,
    TaskDifference,
)
from harness.comparing.answers import choose_flips, compare_arms
from harness.comparing.chain import OUTCOMES, Chain, causes
from harness.comparing.parts import differences_of, differing, files_of
from harness.comparing.recorded import are_recorded, read_recorded_sides
from harness.comparing.sides import Side, read_side
from harness.comparing.tensors import compare_checkpoints
from harness.errors import UsageError


def compare_runs(a: Path, b: Path, *, max_flips: int = 20) -> RunDifference:
    """Compare two run directories, two scored arms, or two arms that other tools recorded.

    Args:
        a: such as the run of yesterday.
        b: such as the run of today.
        max_flips: items to show of those that are scored otherwise.

    Raises:
        UsageError: one is no run, or they are one.
        RunDirectoryError: the recipe of one cannot be read.
        IncomparableError: two tools scored them.
    """
    if a.resolve() == b.resolve():
        message = f"'{a}' and '{b}' are one folder. Name two runs."
        raise UsageError(message)
    sides = read_recorded_sides(a, b) if are_recorded(a, b) else (read_side(a), read_side(b))
    return compare_sides(*sides, max_flips=max_flips)


def compare_sides(a: Side, b: Side, *, max_flips: int) -> RunDifference:
    """Compare what was read of two runs."""
    differs = differing(a, b)
    differences = differences_of(a, b)
    tasks = compare_arms(a.candidate, b.candidate)
    tensors = compare_checkpoints(files_of(a), files_of(b))
    if differs[Part.CHECKPOINT] is None and tensors.groups:
        differs[Part.CHECKPOINT] = True
    outcomes = [part for part in OUTCOMES if differs[part]]
    is_made = all(isinstance(side.recipe, Recipe) for side in (a, b))
    has_failed = any(side.verdict is None or side.failure is not None for side in (a, b))
    chain = Chain(differs, is_made=is_made, has_failed=has_failed)
    ways = chain.ways(outcomes)
    on_a_way = {part for way in ways for part in way}
    return RunDifference(
        a=_described(a),
        b=_described(b),
        outcome=_outcome(a, b, [t.difference for t in tasks], outcomes),
        causes=causes(ways, differences),
        without_effect=tuple(
            p for p in Part if differs[p] and p not in on_a_way and p not in OUTCOMES
        ),
        same=tuple(p for p in Part if differs[p] is False),
        unknown=tuple(p for p in Part if differs[p] is None),
        differences=tuple(differences),
        tasks=tuple(one.difference for one in tasks),
        baseline_tasks=tuple(one.difference for one in compare_arms(a.baseline, b.baseline)),
        flips=choose_flips(tasks, max_flips),
        num_flips=sum(len(one.flips) for one in tasks),
        tensors=tensors.groups,
        tensors_note=tensors.note,
    )


def _described(side: Side) -> ComparedRun:
    recipe = side.recipe
    name = f"{recipe.name} of {recipe.model}" if recipe is not None else "scores"
    if side.deployment is not None:
        name += f", {side.deployment.engine} {side.deployment.version} on {side.deployment.device}"
    summary = side.failure.message if side.failure else side.verdict.summary if side.verdict else ""
    return ComparedRun(
        place=str(side.place), name=name, ending=side.ending, summary=summary, notes=side.notes
    )


def _outcome(a: Side, b: Side, tasks: Sequence[TaskDifference], outcomes: Sequence[Part]) -> str:
    if not outcomes:
        return "nothing came out differently, as far as both runs say it"
    said = [f"A ended {a.ending}, B {b.ending}"] if a.ending != b.ending else []
    paired = [t for t in tasks if t.num_items and t.difference is not None]
    if Part.ANSWERS in outcomes and paired:
        num = sum(t.num_items for t in paired)
        lost, won = sum(t.num_lost for t in paired), sum(t.num_won for t in paired)
        reworded = sum(t.num_reworded for t in paired)
        said.append(
            f"B lost {lost} and won {won} of {num} answers to the same questions, and worded "
            f"{reworded} otherwise"
        )
    elif Part.ANSWERS in outcomes:
        said.append("the answers are not compared one by one")
    rest = [p.value for p in outcomes if p in (Part.CHECKS, Part.BASELINE)]
    if rest:
        said.append(f"also different: {' and '.join(rest)}")
    return "; ".join(said) or "the verdicts say other things of the same answers"
