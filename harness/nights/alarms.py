"""Which cells got worse than their anchor, since when, and what their reruns made of it.

Every number is in the rows, so this can be asked again at any time and says the same.

Within one cell each task, all tasks together, and each measure is a series of its own, from the
anchor on. A night raises an alarm by itself (`LOSS`) or with those before it (`DRIFT`). A night
whose alarm was flaky or infrastructure is left out, as if it had not been. One that is real stands
until the sum is back at zero, and is not raised again meanwhile.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import log
from typing import NamedTuple

from harness.artifacts import AgainstAnchor, Alarm, AlarmCause, AlarmKind, NightRow
from harness.gate import ALL_TASKS
from harness.nights.confirming import Confirmed, Where, confirm, is_same
from harness.nights.cusum import AGAIN, FEWEST_PAIRS, LEVEL, Cusum, H, loss_of, noise_of
from harness.nights.hosts import sick_hosts
from harness.nights.measures import WORSE
from harness.nights.order import night_key


class Raised(NamedTuple):
    """An alarm, with the run that raised it."""

    alarm: Alarm
    row: NightRow
    ask: Where | None
    """Where it is to be run again next; None where it is settled."""


class _Night(NamedTuple):
    """One night of a series."""

    row: NightRow
    one: AgainstAnchor
    noise: float | None


def alarms(rows: Sequence[NightRow]) -> tuple[Alarm, ...]:
    """Return every alarm of these rows, in the order of their nights."""
    return tuple(one.alarm for one in raised(rows))


def raised(rows: Sequence[NightRow]) -> tuple[Raised, ...]:
    """Return every alarm with the run that raised it, in the order of the rows."""
    place = {id(row): number for number, row in enumerate(rows)}
    found = [
        one for cell in dict.fromkeys(row.cell for row in rows) for one in _of_cell(cell, rows)
    ]
    kept = [one for one in found if not _is_said_already(one, found)]
    return tuple(sorted(kept, key=lambda one: place[id(one.row)]))


def raised_by(rows: Sequence[NightRow], night: str) -> tuple[Raised, ...]:
    """Return what alarms in a night: what it raised, and what is real since an earlier one.

    A loss that was told once and is still there is told every night: nobody who was away is to
    find it green.
    """
    key = night_key(night)
    known = [row for row in rows if night_key(row.night) <= key]
    return tuple(one for one in raised(known) if one.alarm.night == night or one.alarm.stands)


def unwatched(rows: Iterable[NightRow]) -> Mapping[str, str]:
    """Return the cells whose last regular night was not compared with an anchor, and why."""
    last = {row.cell: row for row in rows if row.is_counted and row.tasks}
    return {cell: row.not_compared for cell, row in last.items() if row.not_compared}


def _is_said_already(one: Raised, found: Sequence[Raised]) -> bool:
    """Return whether an alarm over all tasks only repeats that of a task."""
    return one.alarm.what == ALL_TASKS and any(
        other.row is one.row and other.alarm.what not in {ALL_TASKS, *WORSE} for other in found
    )


def _of_cell(cell: str, rows: Sequence[NightRow]) -> Iterator[Raised]:
    ours = [row for row in rows if row.cell == cell]
    regular = list({_run_of(row): row for row in ours if row.is_counted and row.against}.values())
    series = dict.fromkeys((one.anchor, one.what) for row in regular for one in row.against)
    last = regular[-1].against[0].anchor if regular else ""
    for anchor, what in series:
        nights = [
            _Night(row, one, _noise(one, row, ours))
            for row in regular
            for one in row.against
            if (one.anchor, one.what) == (anchor, what)
        ]
        for found in _of_series([n for n in nights if n.noise is not None], rows):
            yield found if anchor == last else _ended(found)


def _run_of(row: NightRow) -> tuple[str, int, str]:
    """Return what makes two rows the same run, such as one whose row was written anew."""
    return row.night, row.attempt, row.run_dir


def _noise(one: AgainstAnchor, row: NightRow, rows: Sequence[NightRow]) -> float | None:
    """Return the noise of a difference: of a task as the row says, of a measure by its reruns."""
    if one.what not in WORSE:
        return one.noise or 0.0
    until = next(number for number, other in enumerate(rows) if other is row)
    known = [other for other in rows[: until + 1] if other.measures.get(one.what, 0.0) > 0]
    pairs = [(a, b) for a, b in pairwise(known) if a.gpu == b.gpu]
    reruns = [pair for pair in pairs if is_same(*pair)]
    # Where every night has other bytes, what they change is taken for noise, too.
    chosen = reruns if len(reruns) >= FEWEST_PAIRS else pairs
    return noise_of(one.what, [log(b.measures[one.what] / a.measures[one.what]) for a, b in chosen])


def _of_series(nights: Sequence[_Night], rows: Sequence[NightRow]) -> Iterator[Raised]:
    total, standing = Cusum(), None
    for night in nights:
        before, total = total, _with(total, night, night.one)
        is_loss = _is_loss(night.one, LEVEL / night.one.num_tests)
        if standing is not None and (is_loss or total.value > 0):
            continue
        if standing is not None:
            yield _ended(standing)
            standing = None
        if not (is_loss or total.is_beyond):
            continue
        kind = AlarmKind.LOSS if is_loss else AlarmKind.DRIFT
        said = _confirm(night, before, kind, rows)
        found = Raised(_alarm(night, total, kind, said), night.row, said.ask)
        if said.cause is AlarmCause.REAL:
            standing = found
            continue
        yield _ended(found)
        if said.cause in {AlarmCause.FLAKY, AlarmCause.INFRASTRUCTURE}:
            total = before
    if standing is not None:
        yield standing


def _ended(found: Raised) -> Raised:
    return found._replace(alarm=replace(found.alarm, stands=False))


def _with(total: Cusum, night: _Night, one: AgainstAnchor) -> Cusum:
    loss = loss_of(one.difference, noise=night.noise or 0.0, spread=one.spread)
    return total.after(loss, night.row.night)


def _is_loss(one: AgainstAnchor, level: float) -> bool:
    return one.p_value is not None and one.p_value <= level


def _confirm(night: _Night, before: Cusum, kind: AlarmKind, rows: Sequence[NightRow]) -> Confirmed:
    row, one = night.row, night.one

    def seen(rerun: NightRow) -> bool | None:
        """Return whether a rerun shows the loss, or raises the sum as far in the night's place."""
        for again in rerun.against:
            if (again.anchor, again.what) == (one.anchor, one.what):
                if kind is AlarmKind.LOSS:
                    return _is_loss(again, AGAIN)
                return _with(before, night, again).is_beyond
        return None

    same_night = [other for other in rows if other.night == row.night]
    ours = [other for other in same_night if other.cell == row.cell]
    sick = {found.host for found in sick_hosts(same_night)}
    return confirm(row, ours, seen, is_suspect=row.host in sick)


def _alarm(night: _Night, total: Cusum, kind: AlarmKind, said: Confirmed) -> Alarm:
    row, one = night.row, night.one
    since = total.since or row.night
    text = f"{one.what}: {_in_words(one)} since the anchor"
    if kind is AlarmKind.LOSS:
        text += f" (p = {one.p_value:.2g} of no loss)"
    else:
        text += f"; the losses since {since} add up to {total.value:.1f}, where {H:g} is allowed"
    return Alarm(
        cell=row.cell,
        night=row.night,
        kind=kind,
        what=one.what,
        since=since,
        cause=said.cause,
        message=f"{text}; {said.why}",
    )


def _in_words(one: AgainstAnchor) -> str:
    if one.what in WORSE:
        return f"{100 * abs(one.difference):.1f} % worse"
    lost = f"lost {one.num_lost} and won {one.num_won} of {one.num_items} items"
    return f"{lost} ({100 * one.difference:+.1f} points)"
