"""The trend page: every cell of a nightly over its nights, for whoever reads it in the morning.

One file of HTML that asks nothing of any network: no script, no font, no picture from elsewhere,
and a policy in the page that forbids them. The same rows and alarms give the same bytes.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.artifacts import Alarm, AlarmCause, CellEnding, NightRow, TaskNight, write_atomically
from harness.report import trend_nights, trend_plots, words
from harness.report.trend_nights import CellNights, Change
from harness.report.trend_plots import Plot

TREND_FILE = "trend.html"

_TOLD = (AlarmCause.REAL, AlarmCause.FLAKY, AlarmCause.INFRASTRUCTURE)
_CAUSES = {
    AlarmCause.REAL: ("no-go", "real: it is there again on the same bytes and environment"),
    AlarmCause.FLAKY: ("inconclusive", "flaky: run again, it was not there"),
    AlarmCause.INFRASTRUCTURE: ("infra", "infrastructure: on another host, it was not there"),
    AlarmCause.UNCONFIRMED: ("unknown", "not confirmed yet: nobody is told"),
}


class Banner(NamedTuple):
    """The first thing that is read."""

    kind: str
    word: str
    sentence: str


class Run(NamedTuple):
    """One run in the table of a cell."""

    row: NightRow
    kind: str
    word: str
    scores: tuple[str, ...]
    measures: tuple[str, ...]


class CellPage(NamedTuple):
    """What the page says of one cell."""

    cell: CellNights
    kind: str
    word: str
    is_alarmed: bool
    plots: list[Plot]
    changes: list[Change]
    tasks: tuple[str, ...]
    measures: tuple[str, ...]
    runs: list[Run]


class Notes(NamedTuple):
    """What the ledger says besides its rows and alarms."""

    hosts: Sequence[str] = ()
    """Machines on which failures pile up, a sentence each."""
    unwatched: Mapping[str, str] = MappingProxyType({})
    """Cells whose last night was compared with no anchor, and why."""


def write_trend(
    rows: Sequence[NightRow], alarms: Sequence[Alarm], into: Path, notes: Notes | None = None
) -> Path:
    """Write the page to `trend.html` in the folder `into`, replacing an older one."""
    file = into / TREND_FILE
    write_atomically(file, trend_html(rows, alarms, notes))
    return file


def trend_html(
    rows: Sequence[NightRow], alarms: Sequence[Alarm], notes: Notes | None = None
) -> str:
    """Return the whole page."""
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalized,
    )
    style = "".join(environment.get_template(name).render() for name in ("style.css", "trend.css"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    page = environment.get_template("trend.html.j2")
    ours = {"style": Markup(style), "style_digest": digest}  # noqa: S704  # no text of others
    return page.render(_contents(rows, alarms), notes=notes or Notes(), **ours)


def _finalized(value: object) -> object:
    """Make every text that is set into the page one that HTML can hold."""
    return words.visible(value) if type(value) is str else value


def _contents(rows: Sequence[NightRow], alarms: Sequence[Alarm]) -> dict[str, object]:
    nights = trend_nights.nights_of(rows)
    cells = trend_nights.cells_of(rows, nights)
    told = [alarm for alarm in alarms if alarm.cause in _TOLD]
    looks = trend_nights.looks_of(cells)
    return {
        "banner": _banner(nights, cells, told),
        "tiles": _tiles(nights, cells, alarms),
        "nights": nights,
        "days": [trend_nights.short_night(n) for n in nights[-trend_nights.NIGHTS_IN_BOXES :]],
        "num_hidden": max(len(nights) - trend_nights.NIGHTS_IN_BOXES, 0),
        "cells": cells,
        "pages": [
            _cell_page(cell, nights[-trend_nights.NIGHTS_IN_PLOTS :], alarms) for cell in cells
        ],
        "looks": looks,
        "alarms": sorted(alarms, key=_alarm_rank),
        "causes": _CAUSES,
        "hosts": trend_nights.hosts_of(rows),
        "anchors": {cell.name: cell.anchor for cell in cells},
        "keys": {shape: trend_plots.key_of(shape) for shape in trend_plots.SHAPES},
        "title_of": trend_plots.measure_title,
    }


def _alarm_rank(alarm: Alarm) -> tuple[int, str, str]:
    return (list(_CAUSES).index(alarm.cause), alarm.cell, alarm.what)


def _banner(nights: Sequence[str], cells: Sequence[CellNights], told: Sequence[Alarm]) -> Banner:
    """Return the last night in a word: green only where every cell is GO and no alarm is real."""
    if not nights:
        return Banner("failed", "NO NIGHT", "Nothing was recorded.")
    counts = trend_nights.count_endings(cells)
    sentence = f"Night {nights[-1]}: " + ", ".join(f"{n} {word}" for word, n in counts.items())
    real = [alarm for alarm in told if alarm.cause is AlarmCause.REAL and alarm.stands]
    if real:
        named = ", ".join(dict.fromkeys(alarm.cell for alarm in real))
        return Banner("no-go", "ALARM", f"{sentence}. Worse than the anchor: {named}.")
    not_green = [cell for cell in cells if not cell.is_green]
    return Banner(*_word_of(not_green), sentence + ".")


def _word_of(not_green: Sequence[CellNights]) -> tuple[str, str]:
    if not not_green:
        return "go", "ALL GO"
    excused = [cell for cell in not_green if _is_waived(cell)]
    if len(excused) == len(not_green):
        return "waived", "GO WITH WAIVERS"
    endings = {cell.latest.ending if cell.latest else None for cell in not_green}
    if CellEnding.NO_GO in endings:
        return "no-go", "NO-GO"
    if endings <= {CellEnding.INCONCLUSIVE, CellEnding.GO}:
        return "inconclusive", "INCONCLUSIVE"
    return "failed", "NOT ALL RAN"


def _is_waived(cell: CellNights) -> bool:
    return cell.latest is not None and trend_nights.is_waived(cell.latest)


def _tiles(
    nights: Sequence[str], cells: Sequence[CellNights], alarms: Sequence[Alarm]
) -> list[tuple[str, str, str]]:
    """Return name, value and note of the numbers that are asked for first."""
    green = sum(cell.is_green for cell in cells)
    waived = sum(_is_waived(cell) for cell in cells)
    causes = [alarm.cause for alarm in alarms]
    others = causes.count(AlarmCause.FLAKY) + causes.count(AlarmCause.INFRASTRUCTURE)
    waiting = f"{others} flaky or infrastructure, {causes.count(AlarmCause.UNCONFIRMED)} open"
    return [
        ("Cells GO", f"{green} of {len(cells)}", "in the last night, nothing excused"),
        ("Waived", f"{waived}", "run and recorded, never green"),
        ("Real alarms", f"{causes.count(AlarmCause.REAL)}", waiting),
        ("Nights", f"{len(nights)}", f"{nights[0]} to {nights[-1]}" if nights else "none"),
    ]


def _cell_page(cell: CellNights, nights: Sequence[str], alarms: Sequence[Alarm]) -> CellPage:
    own = [alarm for alarm in alarms if alarm.cell == cell.name]
    tasks = tuple(dict.fromkeys(task.task for row in cell.rows for task in row.tasks))
    measures = tuple(dict.fromkeys(name for row in cell.rows for name in row.measures))
    return CellPage(
        cell=cell,
        kind=trend_nights.ending_kind(cell.latest),
        word=trend_nights.ending_word(cell.latest),
        is_alarmed=any(alarm.cause is AlarmCause.REAL for alarm in own),
        plots=trend_plots.plots_of(cell.rows, nights, own),
        changes=trend_nights.changes_of(cell.rows),
        tasks=tasks,
        measures=measures,
        runs=[_run_of(row, tasks, measures) for row in cell.rows[::-1]],
    )


def _run_of(row: NightRow, tasks: Sequence[str], measures: Sequence[str]) -> Run:
    by_name = {task.task: task for task in row.tasks}
    return Run(
        row=row,
        kind=trend_nights.ending_kind(row),
        word=trend_nights.ending_word(row),
        scores=tuple(_score_of(by_name.get(name)) for name in tasks),
        measures=tuple(
            trend_plots.spelled(name, row.measures[name]) if name in row.measures else "-"
            for name in measures
        ),
    )


def _score_of(task: TaskNight | None) -> str:
    """Spell a score, and how far it is from the baseline's."""
    if task is None or task.candidate is None:
        return "-"
    said = words.score(task.candidate, task.scale)
    if task.low is None or task.high is None:
        return said
    return f"{said} ({words.points(task.low)} to {words.points(task.high)})"
