"""A suite made smaller, so that asking both arms fits a time that was typed.

Repeats go first: of as many answers those to more items decide more. Then items, the same share of
each task. What is left is another suite, with a digest and a baseline of its own, and what it can
decide is said before anything runs; what it cannot decide at all is refused, with the time that it
would take.

The time is that of asking: making a checkpoint comes on top. It is estimated from rates that were
measured elsewhere and not on the spot, so that a command typed again chooses the same items.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator

from harness import score
from harness.artifacts import Suite, Tier, Trial, digest_of
from harness.errors import SuiteError, UsageError
from harness.gate import check_margins, joint_probability_of_go, plan_power
from harness.models import Source, read_inventory
from harness.preflight.asking_time import Asked, asking_seconds
from harness.preflight.engine import choose_engine

_log = logging.getLogger("harness.preflight")
_TYPED = re.compile(r"(\d{1,6})([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_STEPS = 40
_STEP = 2 ** (-1 / 4)
"""Each smaller suite asks this share of the items of the one before."""


def seconds_of(typed: str) -> int:
    """Return a time such as 90s, 60m or 2h in seconds.

    Raises:
        UsageError: it is none.
    """
    found = _TYPED.fullmatch(typed)
    if found is None or not int(found[1]):
        message = f"--budget '{typed}' is no time. Type a number and s, m or h, such as 60m."
        raise UsageError(message)
    return int(found[1]) * _SECONDS[found[2]]


def within_budget(trial: Trial, typed: str | None, source: Source) -> Suite:
    """Return the suite of a run, as much of it as can be asked in the time that was typed.

    Args:
        trial: what is asked, on which engine.
        typed: the time; None for all of the suite.
        source: a model of the size of those that are asked.

    Raises:
        UsageError: no time was typed, or one in which nothing can be decided.
    """
    if typed is None:
        return trial.suite
    seconds = seconds_of(typed)
    engine, inventory = choose_engine(trial.engine, source), read_inventory(source)

    def takes(suite: Suite) -> float:
        return asking_seconds(Asked(engine, suite, source, inventory))

    chosen = fit_suite(trial.suite, seconds, takes)
    if chosen is None:
        raise UsageError(_too_little(trial.suite, typed, takes))
    if chosen is trial.suite:
        _log.info("budget %s: all of the suite fits, about %s", typed, _words(takes(chosen)))
        return chosen
    _say(trial.suite, chosen, typed, takes(chosen))
    digest = digest_of(trial.suite.digest, [(t.name, t.items, t.repeats) for t in chosen.tasks])
    name = f"{chosen.name}-{typed}"
    return dataclasses.replace(chosen, name=name, digest=digest, signoff=False)


def fit_suite(suite: Suite, seconds: float, takes: Callable[[Suite], float]) -> Suite | None:
    """Return the largest part of a suite that takes no longer and can decide; None if none does."""
    fitting = (part for part in _parts(suite) if takes(part) <= seconds)
    largest = next(fitting, None)
    return largest if largest is not None and _decides(largest) else None


def _parts(suite: Suite) -> Iterator[Suite]:
    """Yield ever smaller parts: fewer repeats, then fewer items."""
    yield suite
    part, repeats = suite, max(task.repeats for task in suite.tasks)
    while repeats > 2:  # noqa: PLR2004  one answer alone is another kind of task
        repeats = max(repeats // 2, 2)
        capped = (
            dataclasses.replace(task, repeats=min(task.repeats, repeats)) for task in suite.tasks
        )
        part = dataclasses.replace(suite, tasks=tuple(capped))
        yield part
    for step in range(1, _STEPS):
        smaller = score.part_of(part, _STEP**step)
        tasks = (
            dataclasses.replace(task, clusters=min(task.clusters, task.items))
            for task in smaller.tasks
        )
        yield dataclasses.replace(smaller, tasks=tuple(tasks))


def _decides(suite: Suite) -> bool:
    try:
        check_margins(suite)
    except SuiteError:
        return False
    return True


def _too_little(suite: Suite, typed: str, takes: Callable[[Suite], float]) -> str:
    least = next((part for part in reversed(list(_parts(suite))) if _decides(part)), None)
    needs = "" if least is None else f" It needs about {_words(takes(least))} to decide anything."
    return (
        f"in --budget {typed} suite '{suite.name}' cannot be asked enough to meet its margins, not "
        f"even by a candidate that answers like its baseline.{needs} Type a longer time, or "
        "another suite."
    )


def _say(suite: Suite, chosen: Suite, typed: str, seconds: float) -> None:
    """Say what is asked and what it decides, before anything runs."""
    asked, whole = (sum(task.items * task.repeats for task in s.tasks) for s in (chosen, suite))
    _log.info(
        "budget %s: %d of %d answers are asked for, about %s",
        *(typed, asked, whole, _words(seconds)),
    )
    for power in plan_power(chosen, Tier.CRITICAL):
        task = power.task
        times = f" x {task.repeats}" if task.repeats > 1 else ""
        _log.info(
            "budget %s: %s, %d items%s: decides %.2f points, allowed are %.2f; GO of a candidate "
            "without loss %.0f %%",
            *(typed, task.name, task.items, times),
            *(100 * power.smallest_margin, 100 * power.margin, 100 * power.probability_of_go),
        )
    _log.info(
        "budget %s: GO of a candidate without loss, over all critical tasks: %.0f %% (all of the "
        "suite: %.0f %%)",
        *(typed, 100 * joint_probability_of_go(chosen), 100 * joint_probability_of_go(suite)),
    )


def _words(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"  # noqa: PLR2004
