"""The row of one run of a cell, read from its run directory.

The same run directory gives the same row whenever it is read, so that a nightly that was killed
between a run and its row adds it when it goes on, and never twice.
"""

import math
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness import __version__
from harness.artifacts import (
    MadeFrom,
    RunRecord,
    Surroundings,
    TaskNight,
    TaskVerdict,
    digest_of,
    made_from,
)
from harness.artifacts.nights import CellEnding, CellWaiver, NightRow, Purpose
from harness.errors import RunDirectoryError
from harness.installed import digest_of_all, read_surroundings
from harness.nights.against import compare_with_anchor
from harness.nights.endings import ending_of, of_no_run
from harness.nights.measures import measures_of
from harness.rundir import RECIPE_FILE, read_times
from harness.runs import FAILURE_FILE, read_run
from harness.stages import CANDIDATE, JUDGE


@dataclass(frozen=True, kw_only=True, slots=True)
class CellRun:
    """What is known of a run beside its directory."""

    cell: str
    night: str
    attempt: int
    purpose: Purpose
    exit_code: int | None
    """Of the process; None where none was started or none is known."""
    started: str = ""
    """UTC, such as `2031-12-31T01:02:03Z`; by default by the run directory's files, as is
    `ended`."""
    ended: str = ""
    host: str = ""
    """By default as the run directory says it, else this machine's name."""
    gpu: str = ""
    """By default as the deployment says it."""
    image: str = ""
    """Digest of the container's image, if it ran in one; by default the engine's."""
    harness: str = f"harness {__version__}"
    message: str = ""
    """Why there was no run, where there was none."""
    waiver: CellWaiver | None = None


def row_of_run(run_dir: Path | None, run: CellRun, *, ledger: Path | None = None) -> NightRow:
    """Return the row of a cell that was run, or was to.

    Args:
        run_dir: of the run; None or an empty folder where nothing was begun.
        run: what else is known.
        ledger: folder of the ledger, for the cell's anchor; a run directory below it is named
            relative to it.
    """
    if run_dir is None or not (run_dir / RECIPE_FILE).exists():
        ending, why = of_no_run(run.exit_code)
        return _row(run, run_dir, ending, run.message or why)
    try:
        record, seen = read_run(run_dir), read_surroundings(run_dir)
    except RunDirectoryError as error:
        found = _row(run, run_dir, CellEnding.INFRA_FAILED, str(error))
        return _replaced(found, reason_codes=(error.reason.value,), run_dir=_named(run_dir, ledger))
    run = replace(run, host=run.host or _last(one.host for one in seen))
    ending, why = ending_of(record, run.exit_code)
    started, ended = _times_of(run_dir, run)
    served = record.deployment
    beside = compare_with_anchor(record, run_dir, run.cell, ledger)
    return _replaced(
        _row(run, run_dir, ending, _one_line(why)),
        started=started,
        ended=ended,
        reason_codes=tuple(_reasons(record, ending)),
        digests=_digests(record, run, seen, made_from(run_dir / CANDIDATE.file) or {}),
        gpu=run.gpu or (served.device if served else ""),
        engine=f"{served.engine} {served.version}" if served else "",
        run_dir=_named(run_dir, ledger),
        tasks=tuple(_task(task) for task in record.verdict.tasks) if record.verdict else (),
        measures=dict(measures_of(record)),
        against=beside.against,
        not_compared=beside.not_compared,
    )


def _row(run: CellRun, run_dir: Path | None, ending: CellEnding, message: str) -> NightRow:
    return NightRow(
        cell=run.cell,
        night=run.night,
        attempt=run.attempt,
        purpose=run.purpose,
        started=run.started,
        ended=run.ended,
        ending=ending,
        exit_code=run.exit_code,
        reason_codes=(),
        message=message,
        digests={"image": run.image} if run.image else {},
        host=(run.host or platform.node()) if ending is not CellEnding.NOT_RUN else run.host,
        gpu=run.gpu,
        harness=run.harness,
        engine="",
        run_dir="" if run_dir is None else str(run_dir),
        waiver=run.waiver,
    )


def _replaced(row: NightRow, **changes: object) -> NightRow:
    values = {name: getattr(row, name) for name in NightRow.__dataclass_fields__}
    return NightRow(**{**values, **changes})


def _named(run_dir: Path, ledger: Path | None) -> str:
    here = run_dir.resolve()
    if ledger is not None and here.is_relative_to(ledger.resolve()):
        return str(here.relative_to(ledger.resolve()))
    return str(here)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _times_of(run_dir: Path, run: CellRun) -> tuple[str, str]:
    """Return when a run began and ended, by its files where nobody took the time."""
    files = (run_dir / name for name in (JUDGE.file, FAILURE_FILE, RECIPE_FILE))
    last = next(path for path in files if path.exists()).stat().st_mtime
    ended = datetime.fromtimestamp(last, UTC)
    began = ended - timedelta(seconds=math.fsum(read_times(run_dir).values()))
    return run.started or _stamp(began), run.ended or _stamp(ended)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _reasons(record: RunRecord, ending: CellEnding) -> Iterator[str]:
    """Yield why a run ended so; a verdict is no reason of a process that failed behind it."""
    if record.failure is not None:
        yield record.failure.reason_code.value
    elif record.verdict is not None and ending is not CellEnding.INFRA_FAILED:
        yield from (reason.value for reason in record.verdict.reason_codes)


def _digests(
    record: RunRecord, run: CellRun, seen: tuple[Surroundings, ...], used: MadeFrom
) -> Mapping[str, str]:
    verdict, served = record.verdict, record.deployment
    checkpoint = (
        (verdict.checkpoint_digest if verdict else None)
        or (record.checkpoint.digest if record.checkpoint else None)
        or (served.checkpoint_digest if served else None)
    )
    base = record.baseline.deployment.checkpoint_digest if record.baseline else None
    found = {
        "recipe": digest_of(record.recipe),
        "suite": record.recipe.suite.digest,
        "checkpoint": checkpoint,
        "baseline": (verdict.baseline_digest if verdict else None) or base,
        "engine": used.get("engine", digest_of(record.recipe.engine.identity())),
        "image": run.image or _last(one.image for one in seen),
        "versions": used.get("versions"),
        "environment": digest_of_all(seen),
    }
    return {name: digest for name, digest in found.items() if digest}


def _last(values: Iterable[str | None]) -> str:
    return next((value for value in reversed([*values]) if value), "")


def _task(task: TaskVerdict) -> TaskNight:
    return TaskNight(
        task=task.task,
        tier=task.tier,
        baseline=task.baseline,
        candidate=task.candidate,
        difference=task.difference,
        low=_finite(task.low),
        high=_finite(task.high),
        margin=task.margin,
        num_items=task.num_items,
        decision=task.decision,
        scale=task.scale,
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
