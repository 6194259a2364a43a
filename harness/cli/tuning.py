"""What `harness tune` prints: the frontier, what was tried at the gate, and how that ended."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness import runs
from harness.artifacts import Attempt, Frontier, Point, to_json
from harness.cli import text
from harness.cli.commands import check_run_apart, found_by_a_plan
from harness.cli.console import Result
from harness.report import terminal_table
from harness.request import Request
from harness.tuning import Ended, Goal, TuningPlan, plan_tuning, tune, wanted

_SHOWN = 24
"""Points of a frontier; frontier.json has all of them."""


class Typed(NamedTuple):
    """Options of tuning alone."""

    bits: float | None
    margin: str | None
    formats: str
    algorithm: str
    tokens: int


def planned(request: Request, typed: Typed, run_dir: Path | None) -> Result:
    """Resolve, check and estimate."""
    asked = wanted(
        request, Goal(typed.bits, typed.margin), typed.formats, typed.algorithm, typed.tokens
    )
    check_run_apart(run_dir, request.model, request.baseline)
    with found_by_a_plan():
        found = plan_tuning(asked, run_dir)
    return Result(text="\n".join(_of_plan(found)), values=found._asdict())


def tuned(request: Request, typed: Typed, run_dir: Path | None) -> Result:
    """Tune, and say how the gate judged it."""
    asked = wanted(
        request, Goal(typed.bits, typed.margin), typed.formats, typed.algorithm, typed.tokens
    )
    check_run_apart(run_dir, request.model, request.baseline)
    ended = tune(asked, run_dir)
    code = runs.exit_code(ended.record)
    values = {
        "run_dir": str(ended.folder),
        "exit_code": int(code),
        "tuning": to_json(ended.tuning),
        "frontier": to_json(ended.frontier),
        "run": text.summary_of(Path(ended.tuning.best.run), ended.record, int(code)),
    }
    return Result(text="\n".join(_of_ending(ended)), values=values, exit_code=code)


def _of_plan(found: TuningPlan) -> Iterator[str]:
    bits = f"{found.least_bits:.2f} to {found.most_bits:.2f} bits a weight"
    yield f"{found.num_units} units, {bits}"
    where = "in memory" if found.in_memory else f"in a file in {found.run_dir}"
    yield f"  one pass over {found.num_texts} texts: {found.streams}, {where}"
    yield f"  which runs {found.num_tokens} tokens through a layer {found.layer_runs} times"
    for why, count in found.refused.items():
        yield f"  {count} units cannot be {why}"
    yield f"run directory: {found.run_dir}"


def _of_ending(ended: Ended) -> Iterator[str]:
    tuning, record = ended.tuning, ended.record
    yield from _table(ended.frontier, tuning.chosen)
    yield ""
    for one in tuning.attempts:
        yield f"at {one.bits:.2f} bits: {_how(one)} ({one.run})"
    yield ""
    table = terminal_table(record.verdict) if record.verdict else ""
    yield text.of_ending(Path(tuning.best.run), record, table)
    bits = f"{tuning.chosen.bits:.2f} bits a weight, with those that are left as they are"
    if tuning.best.decision is not None:
        yield f"recipe: {ended.folder / 'recipe.yaml'} ({bits})"
    yield f"plot: {ended.folder / 'frontier.svg'}"


def _how(one: Attempt) -> str:
    return one.decision or f"failed: {one.summary}"


def _table(frontier: Frontier, chosen: Point) -> Iterator[str]:
    """Yield the frontier: recipes that were measured, and uniform ones beside them."""
    made = {id(one) for one in frontier.made()}
    yield f"{'bits':>6}  {'sum of KLD':>10}  {'measured':>9}  {'error':>7}"
    points = [*frontier.uniform, *frontier.points]
    known = [one for one in points if one.measured is not None]
    for one in sorted(known, key=lambda one: (one.num_bits, one.measured))[-2 * _SHOWN :]:
        mark = " <" if one == chosen else "" if id(one) in made else " (another is better)"
        name = "" if one.name == "frontier" else f"  {one.name}"
        yield (
            f"{one.bits:>6.2f}  {one.kld:>10.4g}  {one.measured or 0.0:>9.4g}  "
            f"{one.stderr or 0.0:>7.2g}{name}{mark}"
        )
    yield (
        "KLD in nats a token; the sum is over units by themselves, measured is all at once on "
        f"{frontier.num_texts} other texts ({frontier.num_tokens} tokens)"
    )
