"""The drill's table: for the terminal, as markdown, and as JUnit XML for a CI."""

from harness.artifacts import Decision
from harness.drill.result import Attempt, Correct, Drilled, DrillReport
from harness.report import Case, Problem, junit_document

_HEAD = ("fault", "strikes", "caught by", "evidence", "time", "with that off")
_SHOWN = 2
"""Pieces of evidence that fit into a line."""


def text(report: DrillReport) -> str:
    """Return the table for a terminal."""
    rows = [_HEAD, *(_row(report, one) for one in report.drilled)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    formats = [f"{one.format:<20} {_decision(one)}  {one.message}" for one in report.correct]
    return "\n".join(["correct runs", *formats, "", *lines, "", summary(report)])


def markdown(report: DrillReport) -> str:
    """Return the same in markdown, with the incidents."""
    lines = [
        f"# Drill on `{report.engine}`, suite `{report.suite}`",
        "",
        summary(report),
        "",
        "| correct run | verdict |",
        "|---|---|",
        *(f"| {one.format} | {_decision(one)} |" for one in report.correct),
        "",
        "| fault | incident | caught by | evidence | time | with that off |",
        "|---|---|---|---|---|---|",
    ]
    for one in report.drilled:
        name, _, *cells = _row(report, one)
        cell = f"**{name}**: {one.what}"
        lines.append(f"| {cell} | [{_short(one.incident)}]({one.incident}) | {' | '.join(cells)} |")
    note = (
        "Time: seconds until the ending was known, and as a share of a correct run of the same "
        "format, its baseline left out."
    )
    return "\n".join([*lines, "", note]) + "\n"


def junit_xml(report: DrillReport) -> str:
    """Return a test case for each fault and each correct run."""
    correct = [
        Case(f"correct {one.format}", missed(_complaint(one)), seconds=one.seconds)
        for one in report.correct
    ]
    faults = [
        Case(
            one.fault,
            missed(None if one.exit_code == 0 else _ending(one.first)),
            seconds=one.first.seconds,
        )
        for one in report.drilled
    ]
    suites = {"drill.correct": correct, "drill.faults": faults}
    return junit_document(suites, name="harness drill")


def missed(complaint: str | None) -> Problem | None:
    """Return what a test case shows of something that was not caught."""
    return None if complaint is None else Problem("failure", "missed", complaint)


def summary(report: DrillReport) -> str:
    """Return one line with the result."""
    good = sum(one.decision is Decision.GO for one in report.correct)
    missed = [one.fault for one in report.drilled if one.exit_code != 0]
    line = (
        f"{report.num_caught} of {len(report.drilled)} faults caught, "
        f"{good} of {len(report.correct)} correct runs GO"
    )
    if missed:
        line += f"; NOT CAUGHT: {', '.join(missed)}"
    return line if report.finished else f"unfinished: {line}"


def _row(report: DrillReport, one: Drilled) -> tuple[str, str, str, str, str, str]:
    return (
        one.fault,
        one.kind,
        one.first.caught_by or f"NOTHING ({_ending(one.first)})",
        _evidence(one.first),
        _time(report, one),
        _next(one),
    )


def _evidence(attempt: Attempt) -> str:
    shown = ", ".join(attempt.evidence[:_SHOWN])
    more = len(attempt.evidence) - _SHOWN
    return f"{shown}, {more} more" if more > 0 else shown


def _time(report: DrillReport, one: Drilled) -> str:
    whole = next((c.seconds for c in report.correct if c.format == one.format), 0.0)
    share = f" ({one.first.seconds / whole:.0%})" if whole else ""
    return f"{one.first.seconds:.1f} s{share}"


def _next(one: Drilled) -> str:
    if one.second is None:
        return "cannot be switched off" if one.first.caught_by else "-"
    if one.second.caught_by is None:
        return f"nothing ({_ending(one.second)})"
    return f"{one.second.caught_by}: {_evidence(one.second)}"


def _ending(attempt: Attempt) -> str:
    reasons = ", ".join(attempt.evidence)
    return " ".join(part for part in (attempt.decision or "no verdict", reasons) if part)


def _decision(one: Correct) -> str:
    return one.decision or "no verdict"


def _complaint(one: Correct) -> str | None:
    return None if one.decision is Decision.GO else f"{_decision(one)}: {one.message}"


def _short(link: str) -> str:
    """Return `owner/repository #number` of a link to GitHub."""
    *_, _owner, repository, _kind, number = link.split("/")
    return f"{repository} #{number}"
