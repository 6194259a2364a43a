"""When the baseline of a run is measured: at once with the candidate, before it or after it.

Every arm is started once. Where two servers fit, the baseline's answers from the beginning, in a
process of its own. Where they do not, it answers everything before the candidate is started, or,
where its suite takes very long, the smoke set alone, so that a broken candidate is known early.

Two servers on one device that fit by their sizes may still get into each other's way. Then the one
that ran out of memory is started again by itself: no verdict is lost.
"""

import dataclasses
import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from harness import baselines
from harness.arms.background import Background, measured_in_background
from harness.arms.baseline import (
    BaselineOrder,
    lacking_of,
    measure_baseline,
    probe_baseline,
    read_probe,
)
from harness.artifacts import EngineSpec, Probe, SmokeSet
from harness.errors import HarnessError, ReasonCode
from harness.preflight import Together, Way

_log = logging.getLogger("harness.arms")
_POLL_S = 0.5
_CROWDED = ReasonCode.OUT_OF_MEMORY
"""The one reason why what failed beside another server may go well by itself."""


class Measuring:
    """The baseline of one run, measured as far as the store does not have it."""

    def __init__(self, order: BaselineOrder, together: Together) -> None:
        """Measure nothing yet."""
        self._order, self.together = order, together
        self._alone = order._replace(engine=alone(order.engine))
        self._processes = ExitStack()
        self._background: Background | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._processes.__exit__(*error)  # type: ignore[arg-type]  # as a with statement gives them

    def begin(self) -> None:
        """Start to measure in a process of its own, where that fits and anything is missing."""
        if self._background is None and self.will_begin:
            measuring = measured_in_background(self._order)
            self._background = self._processes.enter_context(measuring)

    @property
    def folder(self) -> Path:
        """Return where its scores lie, or appear while it is measured."""
        return baselines.folder_of(self._order.inputs.key)

    @property
    def has_begun(self) -> bool:
        """Whether it is measured, or was, in a process of its own."""
        return self._background is not None

    @property
    def will_begin(self) -> bool:
        """Whether it is, or is going to be, measured in a process of its own."""
        if self._background is not None:
            return True
        is_beside = self.together.way in (Way.APART, Way.BESIDE)
        return is_beside and lacking_of(self._order).anything

    @property
    def comes_first(self) -> bool:
        """Whether the baseline has to be measured before the candidate is looked at."""
        if self._background is not None or self.together.asks_first:
            return False
        return lacking_of(self._order).answers

    @property
    def is_beside(self) -> bool:
        """Whether another server takes memory of the candidate's device now."""
        beside = self.together.way is Way.BESIDE
        return beside and self._background is not None and self._background.is_alive()

    def wait(self) -> None:
        """Wait until nothing is measured any more; whatever went wrong is said later."""
        if self._background is not None:
            self._background.wait()

    def probe(self, prompts: SmokeSet, *, give_way: Callable[[], None]) -> Probe:
        """Return the baseline's answers to the smoke set.

        Args:
            prompts: what is asked.
            give_way: stops the candidate's server, should the baseline need its device.

        Raises:
            EngineError: the engine failed, or did not load the unquantized model as it should.
        """
        folder = baselines.folder_of(self._order.inputs.key)
        while (kept := read_probe(folder, prompts)) is None and self._is_alive():
            time.sleep(_POLL_S)
        # It may have ended between the two looks.
        if kept is None and (kept := read_probe(folder, prompts)) is None:
            self._refuse_failed()
            give_way()
            if self._background is not None:
                measure_baseline(self._alone)
            kept = probe_baseline(self._alone, prompts)
        return kept

    def scores(self) -> Path:
        """Return the folder of the baseline's scores; what the store lacks is measured now.

        Raises:
            HarnessError: it cannot be measured.
        """
        self.wait()
        if lacking_of(self._order).anything:
            self._refuse_failed()
        return measure_baseline(self._alone)

    def _is_alive(self) -> bool:
        return self._background is not None and self._background.is_alive()

    def _refuse_failed(self) -> None:
        """Refuse to measure again what has failed for a reason that will not go away.

        Raises:
            HarnessError: what went wrong in the process that measured.
        """
        failure = self._background.wait() if self._background is not None else None
        if failure is None:
            return
        if not is_crowded(failure):
            raise failure
        _log.warning(
            "arms: the baseline found too little memory beside the candidate, it is measured by "
            "itself: %s",
            _first_line(failure),
        )


def alone(engine: EngineSpec) -> EngineSpec:
    """Return the engine for a server that shares its device with no other."""
    return dataclasses.replace(engine, share=None)


def is_crowded(error: HarnessError) -> bool:
    """Return whether memory ran out, which may be there once another server is gone."""
    return error.reason is _CROWDED


def _first_line(error: HarnessError) -> str:
    return str(error).partition("\n")[0]
