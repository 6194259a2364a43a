"""How long something takes here: on a machine that does nothing else, and on one as busy as now.

On a busy machine the time of a step says more of other programs than of the step. Linux counts how
long each thread could have run and waited for a processor. Without the longest of these waits a
step's time is nearly what it takes alone: on two cores that eight other threads wanted it was
within half as much again, where the time itself was 4 to 12 times as long (`python -m
scripts.plan_truth --busy 4`). Where the system does not count, only the spread of the times tells
that it is busy.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from harness.cores import num_cores

MOST_APART = 3.0
"""Times that the ends of a range may lie apart; beyond it nothing can be said."""
_MOMENT_S = 2.0
"""Nobody waits for less."""
_STEADY = 1.35
"""The same of a step that need not be tried again."""
_MOST_ROUNDS = 8
_HOPELESS_ROUNDS = 5
"""After as many, a step that is still beyond `MOST_APART` is not tried again."""
_NS = 1e-9
_LEAST_S = 1e-9
_TASKS = Path("/proc/self/task")


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeRange:
    """Seconds, from the least to the most."""

    low_s: float
    """With the machine to itself."""
    high_s: float
    """With a machine that stays as busy as it was when this was measured."""

    def __add__(self, other: "TimeRange") -> "TimeRange":
        """Return the time of one after the other."""
        return TimeRange(low_s=self.low_s + other.low_s, high_s=self.high_s + other.high_s)

    def times(self, least: float, most: float | None = None) -> "TimeRange":
        """Return the time of doing it so many times."""
        return TimeRange(
            low_s=self.low_s * least, high_s=self.high_s * (least if most is None else most)
        )

    def rounded(self) -> "TimeRange":
        """Return it in hundredths of a second."""
        return TimeRange(low_s=round(self.low_s, 2), high_s=round(self.high_s, 2))

    @property
    def can_be_said(self) -> bool:
        """Whether the ends are near enough to each other to be worth saying."""
        return self.high_s <= MOST_APART * self.low_s or self.high_s - self.low_s < _MOMENT_S

    @property
    def middle_s(self) -> float:
        """Return the number that both ends are the same factor away from."""
        return math.sqrt(self.low_s * self.high_s)


NOTHING = TimeRange(low_s=0.0, high_s=0.0)


def exactly(seconds: float) -> TimeRange:
    """Return a time that is known."""
    return TimeRange(low_s=seconds, high_s=seconds)


def longest(*ranges: TimeRange) -> TimeRange:
    """Return the time of doing all at once, none of which holds up another."""
    return TimeRange(
        low_s=max(one.low_s for one in ranges), high_s=max(one.high_s for one in ranges)
    )


class Lap(NamedTuple):
    """One step, in seconds."""

    wall_s: float
    alone_s: float
    """Without waiting for a processor."""


def _waits() -> Mapping[str, float]:
    """Return the seconds that each thread has waited for a processor; none where nobody counts."""
    found = {}
    for task in _tasks():
        try:
            fields = (task / "schedstat").read_text(encoding="ascii").split()
        except OSError:  # a thread that has ended meanwhile
            continue
        if len(fields) > 1:
            found[task.name] = int(fields[1]) * _NS
    return found


def _tasks() -> list[Path]:
    try:
        return list(_TASKS.iterdir())
    except OSError:
        return []


class Clock(NamedTuple):
    """What a stopwatch reads."""

    now_s: Callable[[], float] = time.perf_counter
    waits_s: Callable[[], Mapping[str, float]] = _waits
    """Seconds that each thread of this process has waited, by its number."""
    worked_s: Callable[[], float] = time.process_time
    """Seconds that processors have worked for this process, added up."""
    num_processors: int = num_cores()


class _Reading(NamedTuple):
    now_s: float
    waits_s: Mapping[str, float]
    worked_s: float


class Stopwatch:
    """Takes the times of steps that follow each other."""

    def __init__(
        self, clock: Clock | None = None, *, settle: Callable[[], object] | None = None
    ) -> None:
        """Begin to count; `settle` waits for what was started and has not ended."""
        self._clock, self._settle = clock or Clock(), settle
        self._last = self._read()

    def lap(self) -> Lap:
        """Return the time since the last lap."""
        if self._settle is not None:
            self._settle()
        last, self._last = self._last, self._read()
        wall_s = max(self._last.now_s - last.now_s, _LEAST_S)
        waited_s = max(
            (
                waited - last.waits_s.get(thread, 0.0)
                for thread, waited in self._last.waits_s.items()
            ),
            default=0.0,
        )
        # A thread that reads ahead may have waited for those that compute.
        worked_s = (self._last.worked_s - last.worked_s) / self._clock.num_processors
        return Lap(wall_s, min(wall_s, max(wall_s - waited_s, worked_s, _LEAST_S)))

    def _read(self) -> _Reading:
        clock = self._clock
        return _Reading(clock.now_s(), clock.waits_s(), clock.worked_s())


def measured(rounds: Iterable[Sequence[Lap]], *, least: int) -> tuple[TimeRange, ...]:
    """Return the time of each step of a round, from as many rounds as it takes to tell.

    At least `least` rounds are taken; no more where they are alike, or where they differ so much
    that more would not help.

    Raises:
        ValueError: there was no round.
    """
    seen: list[Sequence[Lap]] = []
    found: tuple[TimeRange, ...] = ()
    for laps in rounds:
        seen.append(laps)
        found = tuple(map(_range_of, zip(*seen, strict=True)))
        if len(seen) >= least and _is_enough(found, len(seen)):
            break
    if not seen:
        message = "nothing was measured"
        raise ValueError(message)
    return found


def of_call(call: Callable[[], object], clock: Clock | None = None) -> TimeRange:
    """Return the time of a call that may be made again and again."""

    def rounds() -> Iterable[Sequence[Lap]]:
        while True:
            stopwatch = Stopwatch(clock)
            call()
            yield (stopwatch.lap(),)

    (found,) = measured(rounds(), least=2)
    return found


def _is_enough(found: Sequence[TimeRange], num_rounds: int) -> bool:
    apart = max(one.high_s / one.low_s for one in found)
    hopeless = num_rounds >= _HOPELESS_ROUNDS and apart > MOST_APART
    return apart <= _STEADY or hopeless or num_rounds >= _MOST_ROUNDS


def _range_of(laps: Sequence[Lap]) -> TimeRange:
    """Return what was seen; a single hiccup is no sign of a busy machine."""
    low_s = min(lap.alone_s for lap in laps)
    return TimeRange(low_s=low_s, high_s=max(low_s, median(lap.wall_s for lap in laps)))
