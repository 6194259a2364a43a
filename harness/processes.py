"""Work in other processes: the drill's `--jobs`, a baseline in the background, `verify`.

A process that is told to end unwinds, so that servers which it started are stopped. Arguments and
results are pickled, between processes of one command only.
"""

import logging
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType
from typing import NamedTuple, NoReturn, TypeVar

from harness.errors import ReasonCode, StageError
from harness.interrupts import ctrl_c_held

N = TypeVar("N")
T = TypeVar("T")
_KILLED = "a process was killed, most likely for want of memory. {advice}"
_told_to_end = threading.Event()
_STARTED_FIELD = 19
"""Of /proc/PID/stat after the name."""


class ProcessMark(NamedTuple):
    """One process, not another that got its number later."""

    pid: int
    started: str
    """Clock ticks since boot, which no setting of the clock changes."""

    def still_runs(self) -> bool:
        """Return whether this very process runs."""
        return mark_of(self.pid) == self


def mark_of(pid: int) -> ProcessMark | None:
    """Return the process that has the number now; None where none runs, or none can be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else ProcessMark(pid, fields[_STARTED_FIELD])


def each(
    work: Callable[[N], T],
    names: Sequence[N],
    *,
    jobs: int,
    begin: Callable[[], None] | None = None,
    advice: str,
) -> Generator[T]:
    """Yield what `work` makes of each name, as it is done; one after the other where jobs is 1.

    Args:
        work: what is done; with more than one job a module's function, or a partial of one.
        names: what it is done for.
        jobs: how many at a time.
        begin: prepares a process.
        advice: what to do where one was killed.

    An exception of one, or an end of the iteration before its time, ends the others too.

    Raises:
        StageError: a process was killed.
    """
    if jobs == 1:
        yield from map(work, names)
        return
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (begin,))
    with ctrl_c_held():
        waiting = [pool.submit(_do, work, name) for name in names]
    try:
        for done in as_completed(waiting):
            yield done.result()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        for future in waiting:
            future.cancel()
        if isinstance(error, BrokenProcessPool):
            raise StageError(
                _KILLED.format(advice=advice), reason=ReasonCode.OUT_OF_MEMORY
            ) from error
        raise
    finally:
        pool.shutdown()  # waits until each worker has cleaned up behind itself


def _do(work: Callable[[N], T], name: N) -> T:
    try:
        return work(name)
    finally:
        # All is unwound. The pool would go on to the next work, or wait for it at a lock that a
        # worker which was killed still holds.
        if _told_to_end.is_set():
            os._exit(128 + signal.SIGTERM)


def _begin(begin: Callable[[], None] | None) -> None:
    """Prepare a worker: it unwinds when it is told to end."""
    end_as_parent_says()
    logging.getLogger("harness").setLevel(logging.ERROR)
    if begin is not None:
        begin()


def end_as_parent_says() -> None:
    """Let this process end by an exception at SIGTERM, so that what it started is stopped.

    The same where the parent is gone without a word. Ctrl-C reaches the whole group; the parent
    answers it, and a second order would break off the cleaning up.
    """
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _let_the_parent)
    signal.signal(signal.SIGHUP, _let_the_parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGHUP})
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _let_the_parent(signum: int, frame: FrameType | None) -> None:
    del signum, frame


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    del frame
    signal.signal(signum, signal.SIG_IGN)  # told once more, it goes on cleaning up
    _told_to_end.set()
    sys.exit(128 + signum)
