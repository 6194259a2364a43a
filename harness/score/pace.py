"""How fast answers came: taken while they are scored, without asking anything more for it.

Answers must not change for being timed. So the requests are those of the suite, unstreamed, and
each one's time is taken here; the time to the first token is read from the server's own metrics
before and after, as a mean over all requests.

Requests that are answered at about the same time share whatever else the machine does then. So they
are put together in blocks, in the order in which they were sent, and a block is one observation.
"""

import os
import re
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

from harness.artifacts import Pace, PaceBlock, digest_of
from harness.cores import num_cores
from harness.processes import ProcessMark
from harness.score.recording import Course

NUM_BLOCKS = 20
"""Of one task at most."""
METRICS = "/metrics"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FIRST_TOKEN = re.compile(
    r"^\w+:time_to_first_token_seconds_(?P<what>sum|count)(?:\{[^}]*\})? (?P<value>\S+)",
    re.MULTILINE,
)
_SESSION_FIELD, _RESIDENT_FIELD = 3, 21
"""Of /proc/PID/stat after the name."""


def machine() -> str:
    """Return what tells this machine, since its last start, from others; empty if nothing does."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return digest_of(boot, num_cores())


def pace_of(courses: Iterable[Course], *, alone: bool, num_at_once: int) -> Pace | None:
    """Return how fast a task was answered; None where no answer was generated.

    Args:
        courses: of all of its requests.
        alone: whether nothing else of the run was at work.
        num_at_once: requests that were answered at once, at most.
    """
    timed = [c for c in courses if c.num_tokens and c.seconds and c.begun_s is not None]
    if not timed:
        return None
    seconds = time.monotonic() - min(course.begun_s or 0.0 for course in timed)
    began = datetime.now(UTC) - timedelta(seconds=seconds)
    return Pace(
        began=began.isoformat(timespec="seconds"),
        seconds=seconds,
        machine=machine(),
        alone=alone,
        num_at_once=num_at_once,
        blocks=tuple(_blocks(timed)),
    )


def _blocks(timed: Sequence[Course]) -> Iterable[PaceBlock]:
    """Yield blocks of about as many requests; those that began at once stay together."""
    ordered = sorted(timed, key=lambda course: course.begun_s or 0.0)
    least = -(-len(ordered) // NUM_BLOCKS)
    block: list[Course] = []
    for _, together in groupby(ordered, key=lambda course: course.begun_s):
        block += together
        if len(block) >= least:
            yield _block(block)
            block = []
    if block:
        yield _block(block)


def _block(courses: Sequence[Course]) -> PaceBlock:
    return PaceBlock(
        num_tokens=sum(course.num_tokens or 0 for course in courses),
        seconds=sum(course.seconds or 0.0 for course in courses),
        num_answers=len(courses),
    )


def first_tokens_of(page: str | None) -> tuple[float, float]:
    """Return the sum of all times to a first token, and how many, on a server's page of metrics."""
    found = {"sum": 0.0, "count": 0.0}
    for match in _FIRST_TOKEN.finditer(page or ""):
        try:
            found[match["what"]] += float(match["value"])
        except ValueError:
            return 0.0, 0.0
    return found["sum"], found["count"]


def mean_between(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    """Return the mean of what was added between two readings; None where nothing was."""
    total, count = after[0] - before[0], after[1] - before[1]
    return total / count if count > 0 and total > 0 else None


def resident_bytes(server: ProcessMark | None) -> int | None:
    """Return what a server's processes hold of the host's memory; None where nobody can see it."""
    if server is None or not server.still_runs():
        return None
    pages = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[_SESSION_FIELD] == str(server.pid):
            pages += int(fields[_RESIDENT_FIELD])
    return pages * os.sysconf("SC_PAGE_SIZE") or None
