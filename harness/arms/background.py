"""Measure the baseline in a process of its own while the candidate is served.

It fills the store of baselines, where the run then finds it like any older one.
"""

import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.arms.baseline import BaselineOrder, measure_baseline
from harness.errors import HarnessError
from harness.interrupts import ctrl_c_held
from harness.processes import end_as_parent_says

_log = logging.getLogger("harness.arms")


@contextmanager
def measured_in_background(order: BaselineOrder) -> Iterator[Callable[[], bool]]:
    """Measure the baseline in a process of its own while the context lasts.

    Yields a function that says whether it is still at work.

    A failure is not reported here: the run asks for the same baseline afterwards, measures it
    again and says what is wrong.
    """
    process = multiprocessing.get_context("spawn").Process(
        target=_measure_in_process,
        args=(order, _log.getEffectiveLevel()),
        name="baseline",
    )
    with ctrl_c_held():
        process.start()
    finished = False
    try:
        yield process.is_alive
        process.join()
        finished = True
    finally:
        if not finished:
            process.terminate()
            process.join()


def _measure_in_process(order: BaselineOrder, log_level: int) -> None:
    end_as_parent_says()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("baseline | %(message)s"))
    logger = logging.getLogger("harness")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(log_level)
    try:
        measure_baseline(order)
    except HarnessError as error:
        _log.warning("failed, will be tried again: %s", error)
        sys.exit(int(error.exit_code))
