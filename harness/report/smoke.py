"""The smoke run in words: what was checked, and both arms' answers side by side."""

from collections.abc import Iterable
from dataclasses import dataclass

from harness.artifacts import Check, Mode, RunRecord, Severity, SideBySide, SmokeReport
from harness.report.words import visible

_MOST_ANSWERS = 12
_IN_TERMINAL = 3
_WIDTH = 70
_NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeSection:
    """One smoke run, ready to be set."""

    title: str
    note: str
    checks: tuple[Check, ...]
    """Errors, then what was not run, then what passed."""
    answers: tuple[SideBySide, ...]
    """Lost ones first, then open ones; each prompt once."""


def smoke_sections(record: RunRecord) -> list[SmokeSection]:
    """Return the smoke runs that there were."""
    # Of a server that somebody else runs nobody knows what it computes.
    nothing = record.deployment.computed if record.deployment else "unquantized"
    reports = (record.smoke, record.smoke_declared)
    return [_section(report, nothing) for report in reports if report]


def was_not_run(check: Check) -> bool:
    """Return whether a check could not be run, which is neither a pass nor a failure."""
    return check.severity is Severity.WARNING and check.message.startswith(_NOT_RUN)


def terminal_smoke(record: RunRecord) -> str:
    """Return one line a smoke run; where it failed, its checks and a few answers too."""
    lines: list[str] = []
    for section, report in zip(
        smoke_sections(record), filter(None, (record.smoke, record.smoke_declared)), strict=True
    ):
        lines.append(f"{section.title}: {section.note}")
        if report.errors:
            lines += [f"  {check.id}: {check.message}" for check in report.errors]
            lines += [line for side in section.answers[:_IN_TERMINAL] for line in _lines(side)]
    return "\n".join(lines)


def _section(report: SmokeReport, nothing: str) -> SmokeSection:
    passed = sum(check.passed for check in report.checks)
    skipped = sum(map(was_not_run, report.checks))
    parts = [f"{passed} of {len(report.checks)} checks passed"]
    parts += [f"{len(report.errors)} failed"] if report.errors else []
    parts += [f"{skipped} not run"] if skipped else []
    computed = ", ".join(report.exercised) or nothing
    return SmokeSection(
        title=f"smoke {report.smoke}, {report.numerics} numerics",
        note=f"{', '.join(parts)}; computed: {computed}",
        checks=tuple(sorted(report.checks, key=lambda c: (c.passed, was_not_run(c)))),
        answers=tuple(_each_prompt_once(report.answers))[:_MOST_ANSWERS],
    )


def _each_prompt_once(answers: Iterable[SideBySide]) -> Iterable[SideBySide]:
    """Return lost answers, then those to open prompts, sampled ones last."""
    order = sorted(
        answers, key=lambda side: (not side.lost, bool(side.expect), side.mode is Mode.SAMPLED)
    )
    chosen: dict[str, SideBySide] = {}
    for side in order:
        chosen.setdefault(side.ask, side)
    return chosen.values()


def _lines(side: SideBySide) -> list[str]:
    sides = (("prompt", side.prompt[-_WIDTH:]), ("baseline", side.baseline))
    return [
        f"    {name:<10}{visible(text[:_WIDTH])!r}"
        for name, text in (*sides, ("candidate", side.candidate))
    ]
