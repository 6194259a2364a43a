"""Measure the baseline in a process of its own while the candidate is made and served.

It fills the store of baselines, where the run then finds it like any older one.
"""

import logging
import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from harness.arms.baseline import BaselineOrder, measure_baseline
from harness.errors import HarnessError, ReasonCode, StageError
from harness.interrupts import ctrl_c_held
from harness.processes import end_as_parent_says

_log = logging.getLogger("harness.arms")


class Background:
    """A baseline that is being measured, or was."""

    def __init__(self, order: BaselineOrder) -> None:
        """Start the process."""
        context = multiprocessing.get_context("spawn")
        self._told, tells = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_measure_in_process,
            args=(order, _log.getEffectiveLevel(), tells),
            name="baseline",
        )
        self._failure: HarnessError | None = None
        with ctrl_c_held():
            self._process.start()
        tells.close()

    def is_alive(self) -> bool:
        """Return whether it is still at work."""
        return self._process.is_alive()

    def wait(self) -> HarnessError | None:
        """Wait for its end, and return what went wrong."""
        self._process.join()
        if self._process.exitcode != 0 and self._failure is None:
            self._failure = self._read() or StageError(
                "the process that measured the baseline was killed, or met a bug",
                reason=ReasonCode.OUT_OF_MEMORY,
            )
        return self._failure

    def _read(self) -> HarnessError | None:
        with suppress(EOFError, OSError):
            if self._told.poll():
                told = self._told.recv()
                return told if isinstance(told, HarnessError) else None
        return None

    def stop(self) -> None:
        """End it, with all that it has started."""
        self._process.terminate()
        self._process.join()


@contextmanager
def measured_in_background(order: BaselineOrder) -> Iterator[Background]:
    """Measure the baseline in a process of its own while the context lasts and until it is done.

    An exception in the context ends the process. What goes wrong in it is not raised here: `wait`
    returns it.
    """
    background = Background(order)
    finished = False
    try:
        yield background
        background.wait()
        finished = True
    finally:
        if not finished:
            background.stop()


def _measure_in_process(order: BaselineOrder, log_level: int, tells: Connection) -> None:
    end_as_parent_says()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("baseline | %(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(log_level)
    try:
        measure_baseline(order, alone=False)
    except HarnessError as error:
        _log.info("failed (%s), the run says what becomes of it", error.reason)
        tells.send(error)
        sys.exit(int(error.exit_code))
