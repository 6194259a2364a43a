"""The tables of one or several drills beside each other, such as of two engines.

    python -m scripts.drill_table DRILL_DIR [DRILL_DIR ...] [--record] > evals/DRILL.md

Prints markdown: a row a fault, and for each drill what caught it and what did with that stage
switched off. `--record` adds a row a drill to the ledger; it says what was caught by which stage.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from harness.artifacts import load
from harness.drill import DrillReport
from harness.drill.result import Attempt, Drilled
from harness.drill.table import summary
from scripts import ledger

INTRO = """# The drill

What `harness drill` printed, whole: each known fault put back on the canary, the stage that caught
it and the first of its findings; then the same with that stage switched off. Made by
`python -m scripts.drill_table`.
"""


def main() -> None:
    """Read the drills and print their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("drills", type=Path, nargs="+", help="Folders of finished drills.")
    parser.add_argument("--record", action="store_true", help="Add a row a drill to the ledger.")
    arguments = parser.parse_args()
    reports = [load(DrillReport, folder / "drill.json") for folder in arguments.drills]
    print(table(reports), end="")
    if arguments.record:
        for report in reports:
            record(report)


def table(reports: Sequence[DrillReport]) -> str:
    """Return all drills in markdown."""
    engines = [f"`{report.engine}`" for report in reports]
    lines = [INTRO, *(f"- {e}: {summary(r)}." for e, r in zip(engines, reports, strict=True)), ""]
    lines += [f"| correct run | {' | '.join(engines)} |", "|---" * (len(engines) + 1) + "|"]
    for form in dict.fromkeys(one.format for report in reports for one in report.correct):
        verdicts = [
            next((c.decision or "no verdict" for c in report.correct if c.format == form), "-")
            for report in reports
        ]
        lines.append(f"| {form} | {' | '.join(verdicts)} |")
    heads = [cell for engine in engines for cell in (f"{engine} caught by", "with that off")]
    lines += ["", f"| fault | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    by_name = [{one.fault: one for one in report.drilled} for report in reports]
    for fault in dict.fromkeys(one.fault for report in reports for one in report.drilled):
        found = [drilled.get(fault) for drilled in by_name]
        what = next(one for one in found if one)
        cells = [cell for one in found for cell in _cells(one)]
        name = f"[{fault}]({what.incident}): {what.what}"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def record(report: DrillReport) -> None:
    """Add what a drill found out to the ledger."""
    values: dict[str, object] = {"result": summary(report)}
    for title, attempts in (
        ("caught by", [one.first for one in report.drilled]),
        ("with that off, by", [one.second for one in report.drilled if one.second]),
    ):
        counts = Counter(one.caught_by or "nothing" for one in attempts)
        values |= {f"{title} {defense}": number for defense, number in counts.most_common()}
    ledger.append(
        f"harness drill on engine {report.engine}: each known fault, and each correct format",
        command=f"harness drill --engine {report.engine}",
        values=values,
    )


def _cells(one: Drilled | None) -> tuple[str, str]:
    if one is None:
        return "-", "-"
    second = _caught(one.second) if one.second else "cannot be switched off"
    return _caught(one.first), second


def _caught(attempt: Attempt) -> str:
    if attempt.caught_by is None:
        return f"nothing ({attempt.decision or 'no verdict'})"
    return f"{attempt.caught_by}: {attempt.evidence[0]}"


if __name__ == "__main__":
    main()
