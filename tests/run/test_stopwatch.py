"""What a machine takes, said as a range: no clock here but a made one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from harness import stopwatch
from harness.stopwatch import (
    MOST_APART,
    Clock,
    Lap,
    Stopwatch,
    TimeRange,
    exactly,
    longest,
    measured,
    of_call,
)


class Machine:
    """A machine with two processors, whose time only passes where a test says so."""

    def __init__(self) -> None:
        self.now_s, self.worked_s = 0.0, 0.0
        self.waits_s: dict[str, float] = {}
        self.clock = Clock(lambda: self.now_s, self._waits, lambda: self.worked_s, 2)

    def _waits(self) -> Mapping[str, float]:
        return dict(self.waits_s)

    def work(self, seconds: float, **waits: float) -> None:
        """Let time pass, of which some threads wait."""
        self.now_s += seconds
        for thread, waited in waits.items():
            self.waits_s[thread] = self.waits_s.get(thread, 0.0) + waited


def rounds(walls: Sequence[float], alone: float | None = None) -> Iterator[tuple[Lap, ...]]:
    """Yield rounds of one step; what was taken from it is seen by the test."""
    for wall in walls:
        yield (Lap(wall, wall if alone is None else min(wall, alone)),)


def test_a_lap_leaves_out_the_longest_wait_for_a_processor() -> None:
    machine = Machine()
    watch = Stopwatch(machine.clock)
    machine.work(5.0, one=3.0, other=2.0)
    assert watch.lap() == Lap(5.0, 2.0)
    machine.work(1.0)
    assert watch.lap() == Lap(1.0, 1.0)


def test_a_thread_that_waits_for_this_process_itself_takes_nothing_from_a_lap() -> None:
    machine = Machine()
    watch = Stopwatch(machine.clock)
    machine.work(4.0, reader=3.5)
    machine.worked_s += 8.0  # both processors, all the time
    assert watch.lap() == Lap(4.0, 4.0)


def test_what_was_started_is_waited_for_before_a_lap_ends() -> None:
    machine = Machine()
    watch = Stopwatch(machine.clock, settle=lambda: machine.work(2.0))
    machine.work(1.0)
    assert watch.lap() == Lap(3.0, 3.0)


def test_a_steady_step_is_run_no_more_often_than_it_must_be() -> None:
    taken = rounds([1.0] * 10)
    assert measured(taken, least=3) == (exactly(1.0),)
    assert len(list(taken)) == 7


def test_one_hiccup_is_no_sign_of_a_busy_machine() -> None:
    (found,) = measured(rounds([1.0, 30.0, 1.0, 1.0, 1.0]), least=3)
    assert found == exactly(1.0)


def test_a_step_that_wavers_is_run_again_until_it_is_known() -> None:
    taken = rounds([1.0, 2.0, 2.0, 1.1, 1.0, 1.0, 1.0, 1.0])
    (found,) = measured(taken, least=3)
    assert found.high_s <= 1.5 * found.low_s
    assert len(list(taken)) == 3


def test_a_step_that_grows_noisy_cannot_be_said_and_is_not_measured_on_and_on() -> None:
    taken = rounds([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0], alone=1.0)
    (found,) = measured(taken, least=3)
    assert found == TimeRange(low_s=1.0, high_s=4.0)
    assert not found.times(10).can_be_said
    assert len(list(taken)) == 3, "after five it is hopeless"


def test_without_a_count_of_waits_the_spread_alone_tells_of_a_busy_machine() -> None:
    (found,) = measured(rounds([7.0, 1.0, 9.0, 5.0, 8.0, 6.0, 7.0, 7.0, 7.0]), least=3)
    assert found == TimeRange(low_s=1.0, high_s=7.0)
    assert not found.can_be_said


def test_the_steps_of_a_round_are_told_apart() -> None:
    found = measured([(Lap(1, 1), Lap(5, 5)), (Lap(1, 1), Lap(6, 5))], least=2)
    assert found == (exactly(1), TimeRange(low_s=5, high_s=5.5))


def test_nothing_that_was_measured_is_no_time() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        measured([], least=1)


def test_a_call_is_timed_by_itself() -> None:
    machine = Machine()
    assert of_call(lambda: machine.work(0.5), machine.clock) == exactly(0.5)


def test_ranges_add_up_end_by_end() -> None:
    one, other = TimeRange(low_s=1, high_s=4), TimeRange(low_s=3, high_s=3)
    assert one + other == TimeRange(low_s=4, high_s=7)
    assert one.times(2) == TimeRange(low_s=2, high_s=8)
    assert one.times(1, 3) == TimeRange(low_s=1, high_s=12)
    assert longest(one, other) == TimeRange(low_s=3, high_s=4)
    assert one.middle_s == 2


def test_a_range_is_said_as_long_as_no_end_is_wrong_by_more_than_the_most() -> None:
    assert TimeRange(low_s=10, high_s=10 * MOST_APART).can_be_said
    assert not TimeRange(low_s=10, high_s=10.1 * MOST_APART).can_be_said
    assert TimeRange(low_s=0.01, high_s=1.9).can_be_said, "that it is a moment"


def test_this_system_counts_waits_or_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert all(seconds >= 0 for seconds in Clock().waits_s().values())
    monkeypatch.setattr(stopwatch, "_TASKS", tmp_path / "missing")
    assert Clock().waits_s() == {}
    (tmp_path / "7").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "schedstat").write_text("100 2000000000 3\n")
    monkeypatch.setattr(stopwatch, "_TASKS", tmp_path)
    assert Clock().waits_s() == {"8": 2.0}
