"""A night for people and for a CI: lines, a JUnit file, annotations, a summary page."""

import os
from collections.abc import Iterator
from pathlib import Path

from harness.artifacts import save, write_atomically
from harness.artifacts.nights import Alarm, AlarmCause, CellEnding
from harness.nightly.outcome import CellOutcome, NightOutcome, said
from harness.nightly.places import Place
from harness.report.junit import Case, Problem, junit_document

_FAILURES = (CellEnding.NO_GO,)


def lines_of(night: NightOutcome) -> Iterator[str]:
    """Yield the night, a line a cell, what alarmed, and how it ended."""
    width = max(len(one.cell) for one in night.cells)
    for one in night.cells:
        yield f"{one.cell:<{width}}  {_ending(one):<16}  {said(one.row)}"
    yield from (f"ALARM ({alarm.cause}) {_of_alarm(alarm)}" for alarm in night.told)
    yield from night.notes
    green = sum(one.row.is_green for one in night.cells)
    waived = sum(one.waived for one in night.cells)
    excused = f", {waived} waived" if waived else ""
    yield f"night {night.night} of {night.matrix}: {green} of {len(night.cells)} cells GO{excused}"


def write_reports(night: NightOutcome, place: Place) -> list[Path]:
    """Write the night's files, and return them."""
    place.folder.mkdir(parents=True, exist_ok=True)
    files = [place.folder / f"nightly.{kind}" for kind in ("json", "xml", "md")]
    save(night, files[0])
    write_atomically(files[1], junit_of(night))
    write_atomically(files[2], markdown_of(night))
    return files


def junit_of(night: NightOutcome) -> str:
    """Return the night as JUnit XML: a case a cell and one an alarm; only GO is green."""
    suites = {
        f"nightly.{night.matrix}": [_case(one) for one in night.cells],
        f"alarms.{night.matrix}": [_alarm_case(alarm) for alarm in night.told],
    }
    return junit_document({name: cases for name, cases in suites.items() if cases})


def _case(one: CellOutcome) -> Case:
    row = one.row
    numbers: dict[str, object] = {
        "ending": row.ending,
        "attempt": row.attempt,
        "night": row.night,
        "host": row.host,
        "gpu": row.gpu,
        "engine": row.engine,
        "run_dir": row.run_dir,
        "reason_codes": " ".join(row.reason_codes),
        **row.measures,
    }
    known = {name: value for name, value in numbers.items() if value != ""}
    return Case(one.cell, _problem(one), known, row.message)


def _problem(one: CellOutcome) -> Problem | None:
    row = one.row
    if row.is_green:
        return None
    waiver = row.waiver
    if one.waived and waiver is not None:
        who = f"waived by {waiver.approver} until {waiver.expires}: {waiver.reason}"
        return Problem("skipped", "waived", f"{who}\n{row.ending}: {said(row)}")
    kind = "failure" if row.ending in _FAILURES else "error"
    return Problem(kind, row.ending, f"{row.ending}: {said(row)}")


def _alarm_case(alarm: Alarm) -> Case:
    text = _of_alarm(alarm)
    kind = "failure" if alarm.cause is AlarmCause.REAL else "skipped"
    return Case(f"{alarm.cell}: {alarm.what}", Problem(kind, alarm.cause, text))


def markdown_of(night: NightOutcome) -> str:
    """Return the night as a page of Markdown, as a CI shows it beside its jobs."""
    head = f"# {night.matrix}, night {night.night}: {_title(night)}\n"
    rows = [
        f"| {_cell(one.cell)} | {_ending(one)} | {_cell(one.row.host)} | {_cell(said(one.row))} |"
        for one in night.cells
    ]
    alarmed = [f"- alarm ({alarm.cause}): {_of_alarm(alarm)}" for alarm in night.told]
    notes = [f"- {note}" for note in night.notes]
    table = ["| cell | ending | host | |", "|---|---|---|---|", *rows]
    return "\n".join([head, *table, "", *alarmed, *notes]).rstrip() + "\n"


def annotations_of(night: NightOutcome) -> Iterator[str]:
    """Yield GitHub's workflow commands: an error for each cell and alarm that is not green."""
    for one in night.cells:
        if not one.row.is_green:
            level = "warning" if one.waived else "error"
            yield _annotation(level, f"{one.cell}: {_ending(one)}", said(one.row))
    for alarm in night.told:
        level = "error" if alarm.cause is AlarmCause.REAL else "warning"
        yield _annotation(level, f"{alarm.cell}: {alarm.kind}, {alarm.cause}", alarm.message)


def in_github() -> bool:
    """Return whether this runs as a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def add_to_summary(night: NightOutcome) -> None:
    """Add the night's page to the summary of GitHub's job, where there is one."""
    file = os.environ.get("GITHUB_STEP_SUMMARY")
    if file:
        with Path(file).open("a", encoding="utf-8") as page:
            page.write(markdown_of(night))


def _annotation(level: str, title: str, message: str) -> str:
    """Return a workflow command.

    Source: actions/toolkit, packages/core/src/command.ts: what is escaped, and how.
    """
    text = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = name.replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{text}"


def _title(night: NightOutcome) -> str:
    return "GO" if night.exit_code == 0 else f"not GO (exit code {int(night.exit_code)})"


def _ending(one: CellOutcome) -> str:
    return f"{one.row.ending}{' (waived)' if one.waived else ''}"


def _of_alarm(alarm: Alarm) -> str:
    return f"{alarm.cell}, {alarm.what}, since {alarm.since}: {alarm.message}"


def _cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
