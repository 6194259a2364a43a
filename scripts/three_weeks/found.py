"""What was found beside what was planted: which alarm, since when, how late, and what was wrong."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.artifacts import AlarmCause
from harness.errors import ExitCode
from harness.gate import ALL_TASKS
from harness.nights import Raised, unwatched
from scripts.three_weeks.planted import LOSING, SICK, SICK_SINCE, Plan
from scripts.three_weeks.weeks import Weeks, first_named, name_of, number_of

LATE = {"sudden": 2, "slow": 14, "host": 12}
"""Nights within which each is to be found: two for a cell whose night died on the sick host. One
that loses 1.25 runs a night is named after 4 nights at the median, after 10 at most in 20 draws.
"""
NEAR = {"sudden": 1, "slow": 6}
"""Nights that the estimated beginning may be off."""


class Line(NamedTuple):
    """One line of the table."""

    what: str
    """The cell, or the host."""
    planted: str
    found: str
    delay: int | None
    """Nights from the first that it could be seen in; None where there is nothing to find."""
    wrong: str
    """Why this is a miss or a false alarm; empty where all is well."""
    by_chance: int = 0
    """Alarms that reruns took back, where nothing was planted."""


def lines_of(weeks: Weeks, plans: Sequence[Plan]) -> Iterator[Line]:
    """Yield what was found of each cell and of the sick host."""
    for plan in plans:
        found = [one for one in weeks.raised if one.row.cell == plan.name]
        yield _of_flaky(plan, found, weeks) if plan.bad else _of_cell(plan, found)
    yield _of_hosts(weeks)


def wrong_with(weeks: Weeks, plans: Sequence[Plan]) -> Iterator[str]:
    """Yield what else does not hold: rows, exit codes, what nobody watches."""
    if len(weeks.rows) != weeks.num_written:
        yield f"{weeks.num_written} rows were written, and {len(weeks.rows)} are in the ledger"
    for number, night in enumerate(weeks.nights, start=1):
        if (night.exit_code == ExitCode.GO) != night.is_all_go:
            yield f"night {number} ended with exit code {night.exit_code}"
        rows = [row for row in weeks.rows if row.night == name_of(number)]
        if {row.cell for row in rows} != {plan.name for plan in plans}:
            yield f"night {number} has no row of some cell"
    blind = set(unwatched(weeks.rows))
    if blind != {plan.name for plan in plans if plan.waived}:
        yield f"cells that are said to be unwatched: {', '.join(sorted(blind))}"


def _of_cell(plan: Plan, raised: Sequence[Raised]) -> Line:
    told = [one for one in raised if one.alarm.cause is AlarmCause.REAL]
    found = _words(raised)
    if plan.is_quiet:
        wrong = "a quiet cell was told to be worse" if told else ""
        return Line(plan.name, plan.words, found, None, wrong, len(raised) - len(told))
    kind = "sudden" if plan.sudden else "slow"
    early = [one for one in told if number_of(one.alarm.night) < plan.since]
    if early or not told:
        return Line(plan.name, plan.words, found, None, "told too early" if early else "missed")
    first = told[0].alarm
    delay = number_of(first.night) - plan.since
    off = abs(number_of(first.since) - plan.since)
    reasons = [
        *(["too late"] if delay > LATE[kind] else []),
        *(["the beginning is wrong"] if off > NEAR[kind] else []),
        *(["another thing is named"] if first.what not in {LOSING, ALL_TASKS} else []),
    ]
    return Line(plan.name, plan.words, found, delay, ", ".join(reasons))


def _of_flaky(plan: Plan, raised: Sequence[Raised], weeks: Weeks) -> Line:
    night = weeks.bad_nights.get(plan.name)
    causes = [o.alarm.cause for o in raised if night and o.alarm.night == name_of(night)]
    is_told = any(one.alarm.cause is AlarmCause.REAL for one in raised)
    is_named = AlarmCause.FLAKY in causes
    wrong = "told to be worse" if is_told else "" if is_named else "missed"
    return Line(plan.name, plan.words, _words(raised), 0 if is_named else None, wrong)


def _of_hosts(weeks: Weeks) -> Line:
    planted = f"half of its runs die from night {SICK_SINCE} on"
    named = first_named(weeks.nights)
    found = "; ".join(f"{host} named since night {night}" for host, night in named.items())
    others = [host for host, night in named.items() if host != SICK or night < SICK_SINCE]
    delay = named[SICK] - SICK_SINCE if SICK in named else None
    wrong = "too late" if delay is None or delay > LATE["host"] else ""
    if others:
        wrong = f"{', '.join(others)} named"
    return Line(SICK, planted, found or "nothing", delay, wrong)


def _words(raised: Sequence[Raised]) -> str:
    said = [
        f"{one.alarm.kind} of {one.alarm.what}, {one.alarm.cause}: night "
        f"{number_of(one.alarm.night)}, since night {number_of(one.alarm.since)}"
        for one in raised
    ]
    return "; ".join(dict.fromkeys(said)) or "nothing"
