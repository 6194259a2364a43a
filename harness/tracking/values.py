"""What a run of harness is worth in an experiment tracker: its row, as names and values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.artifacts import Alarm, NightRow, digest_of

_REPORTS = ("report.html", "report.md")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """One run of a tracker. Names and values are those of the ledger; nothing is a secret."""

    id: str
    """sha256 of the row: the same row is sent once."""
    name: str
    group: str
    """The night; empty of a run that is part of none."""
    started_ms: int | None
    """Since 1970, UTC."""
    ended_ms: int | None
    params: Mapping[str, str]
    """What was run: digests, engine, machine."""
    metrics: Mapping[str, float]
    """What came out: scores as fractions of 1 with the bounds of their difference, and measures."""
    tags: Mapping[str, str]
    """How it ended; may change later, as alarms do."""
    files: tuple[str, ...]
    """Reports, by their paths."""


def tracked_run(
    row: NightRow, folder: Path, alarms: Sequence[Alarm] = (), *, name: str = ""
) -> TrackedRun:
    """Return what a tracker is told of a row.

    Args:
        row: of the run.
        folder: of the ledger, which the row's run directory may be relative to.
        alarms: of its night.
        name: in the tracker; by default cell, night and attempt.
    """
    numbered = f"{row.cell} {row.night} {row.purpose} {row.attempt}"
    files = (folder / row.run_dir / report for report in _REPORTS) if row.run_dir else ()
    return TrackedRun(
        id=digest_of(row),
        name=name or numbered,
        group=row.night,
        started_ms=_milliseconds(row.started),
        ended_ms=_milliseconds(row.ended),
        params={name: value for name, value in _params(row) if value},
        metrics=dict(_metrics(row)),
        tags={name: value for name, value in _tags(row, alarms) if value},
        files=tuple(str(file) for file in files if file.is_file()),
    )


def _milliseconds(moment: str) -> int | None:
    return round(datetime.fromisoformat(moment).timestamp() * 1000) if moment else None


def _params(row: NightRow) -> Iterator[tuple[str, str]]:
    yield "cell", row.cell
    yield "engine", row.engine
    yield "gpu", row.gpu
    yield "host", row.host
    yield "harness", row.harness
    for name, digest in row.digests.items():
        yield f"sha256.{name}", digest


def _metrics(row: NightRow) -> Iterator[tuple[str, float]]:
    yield from row.measures.items()
    for task in row.tasks:
        values = {
            "candidate": task.candidate,
            "baseline": task.baseline,
            "difference": task.difference,
            "difference_low": task.low,
            "difference_high": task.high,
            "margin": task.margin,
            "num_items": float(task.num_items),
        }
        yield from ((f"{task.task}/{n}", v) for n, v in values.items() if v is not None)


def _tags(row: NightRow, alarms: Sequence[Alarm]) -> Iterator[tuple[str, str]]:
    yield "verdict", row.ending.value
    yield "reason_codes", " ".join(row.reason_codes)
    yield "exit_code", "" if row.exit_code is None else str(row.exit_code)
    yield "message", row.message
    yield "night", row.night
    yield "purpose", row.purpose.value if row.night else ""
    yield "waived", row.waiver.reason if row.waiver else ""
    ours = [one for one in alarms if one.cell == row.cell]
    yield "alarms", "; ".join(f"{one.kind} of {one.what} ({one.cause})" for one in ours)
