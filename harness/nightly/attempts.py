"""The attempts of a cell in a night: which is due, how it began and ended, and its row.

An attempt is on the disk from its start on, so that a nightly that was killed goes on with it: the
same number, the same run directory. It is over when its process has ended without being told to by
the nightly. Then it gets its row, and it is done again only if what failed may pass.
"""

import fcntl
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness import doors
from harness.artifacts import Failure, load, save
from harness.artifacts.nights import CellEnding, NightRow, Purpose
from harness.errors import ExitCode, ReasonCode
from harness.nightly.child import last_line
from harness.nightly.matrix import Cell
from harness.nightly.places import Place, this_moment
from harness.nights import CellRun, row_of_run
from harness.runs import FAILURE_FILE

_TOLD_TO_END = 128
"""Above it an exit code names the signal by which a process was told to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One attempt, as its file says it."""

    cell: str
    number: int
    """From 1 within the night; confirmations are counted by themselves."""
    purpose: Purpose
    host: str
    started: str
    ended: str = ""
    exit_code: int | None = None
    """None while it is under way, or was killed together with the nightly."""

    @property
    def is_over(self) -> bool:
        """Return whether it has come to an end that counts: a refusal is tried again."""
        return self.exit_code not in (None, ExitCode.USAGE)


def begin(place: Place, cell: str, purpose: Purpose, number: int) -> Attempt:
    """Keep that an attempt begins, or goes on."""
    found = find(place, cell, purpose, number)
    started = found.started if found is not None and found.exit_code is None else this_moment()
    attempt = Attempt(
        cell=cell, number=number, purpose=purpose, host=platform.node(), started=started
    )
    _save(place, attempt)
    return attempt


def end(place: Place, attempt: Attempt, exit_code: int) -> Attempt:
    """Keep that an attempt has ended."""
    over = replace(attempt, ended=this_moment(), exit_code=exit_code)
    _save(place, over)
    return over


def find(place: Place, cell: str, purpose: Purpose, number: int) -> Attempt | None:
    """Return an attempt that was begun.

    Raises:
        RunDirectoryError: its file was changed.
    """
    path = _file(place, cell, purpose, number)
    return load(Attempt, path, advice="Delete the file.") if path.exists() else None


def due(place: Place, cell: Cell, rows: Sequence[NightRow]) -> tuple[Purpose, int] | None:
    """Return the attempt that is to be made now; None where the cell has ended for the night."""
    ran = runs_of(rows, cell.name, place.night)
    if not ran:
        return Purpose.REGULAR, 1
    last = ran[-1]
    if last.attempt > cell.retries or not may_pass(place, last):
        return None
    return Purpose.RETRY, last.attempt + 1


def runs_of(rows: Sequence[NightRow], cell: str, night: str) -> list[NightRow]:
    """Return the rows of a cell that really ran in a night, in the order of its attempts."""
    found = [
        row
        for row in rows
        if (row.cell, row.night) == (cell, night)
        and row.purpose is not Purpose.CONFIRMATION
        and row.ending is not CellEnding.NOT_RUN
    ]
    return sorted(found, key=lambda row: row.attempt)


def may_pass(place: Place, row: NightRow) -> bool:
    """Return whether what failed may pass when it is done again.

    The run says so; or its process was killed, or failed and could not even write why, as on a full
    disk. Whoever is killed behind a GO has lost it, and what is done again finds all stages made. A
    failure that is written elsewhere is not done again.
    """
    failure = place.run_dir(row.cell, row.purpose) / FAILURE_FILE
    if failure.exists():
        return load(Failure, failure).retryable
    if row.ending is not CellEnding.INFRA_FAILED or row.exit_code is None:
        return False
    return row.exit_code < 0 or row.exit_code > _TOLD_TO_END or _is_wordless(row)


def may_pass_at_once(row: NightRow) -> bool:
    """Return whether what may pass is worth trying again in the same command.

    A disk that is full stays so until somebody makes room and types the nightly again. A process
    that failed without a word of why has most likely met one.
    """
    return ReasonCode.DISK_FULL not in row.reason_codes and not _is_wordless(row)


def _is_wordless(row: NightRow) -> bool:
    return row.exit_code == ExitCode.STAGE_FAILED and not row.reason_codes


def row_of(place: Place, cell: Cell, attempt: Attempt) -> NightRow:
    """Return the row of an attempt."""
    run = CellRun(
        cell=attempt.cell,
        night=place.night,
        attempt=attempt.number,
        purpose=attempt.purpose,
        exit_code=attempt.exit_code,
        started=attempt.started,
        ended=attempt.ended,
        host=attempt.host,
        message=_refusal(place, attempt),
        waiver=cell.waiver,
    )
    run_dir = place.run_dir(attempt.cell, attempt.purpose, attempt.number)
    return row_of_run(run_dir, run, ledger=place.out)


def row_of_none(place: Place, cell: Cell, why: str, *, host: str = "") -> NightRow:
    """Return the row of a cell that was to run and did not."""
    run = CellRun(
        cell=cell.name,
        night=place.night,
        attempt=1,
        purpose=Purpose.REGULAR,
        exit_code=None,
        host=host,
        message=why,
        waiver=cell.waiver,
    )
    return row_of_run(None, run)


def lock_cell(place: Place, cell: str) -> int | None:
    """Return the lock of a cell in a night, an open file; None where another process has it.

    Raises:
        OSError: the system refused.
    """
    folder = place.cell(cell)
    folder.mkdir(parents=True, exist_ok=True)
    lock = doors.open_regular(folder / "cell.lock", create=True)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def is_recorded(
    rows: Sequence[NightRow], night: str, cell: str, which: tuple[Purpose, int]
) -> bool:
    """Return whether an attempt has its row."""
    return any((r.night, r.cell, r.purpose, r.attempt) == (night, cell, *which) for r in rows)


def rows_lost(place: Place, cell: Cell, rows: Sequence[NightRow]) -> Iterator[NightRow]:
    """Yield the rows of attempts that are over, and whose nightly ended before it wrote them.

    Whoever asks holds the cell's lock, and read the rows after taking it: otherwise another nightly
    may be writing the very row, or have begun the attempt behind it, which changes what lies there.
    """
    for which in _begun(place, cell.name):
        attempt = find(place, cell.name, *which)
        known = is_recorded(rows, place.night, cell.name, which)
        if attempt is not None and attempt.is_over and not known:
            yield row_of(place, cell, attempt)


def _begun(place: Place, cell: str) -> Iterator[tuple[Purpose, int]]:
    """Yield the attempts that were begun, by their files, in their order."""
    purposes = (Purpose.REGULAR, Purpose.RETRY), (Purpose.CONFIRMATION,)
    for first, *others in purposes:
        number = 1
        while _file(place, cell, first, number).exists():
            yield (first if number == 1 or not others else others[0]), number
            number += 1


def _refusal(place: Place, attempt: Attempt) -> str:
    log = place.attempt(attempt.cell, attempt.purpose, attempt.number).with_suffix(".log")
    return last_line(log, beginning="harness: ").removeprefix("harness: ")


def _save(place: Place, attempt: Attempt) -> None:
    path = _file(place, attempt.cell, attempt.purpose, attempt.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(attempt, path)


def _file(place: Place, cell: str, purpose: Purpose, number: int) -> Path:
    return place.attempt(cell, purpose, number).with_suffix(".json")
