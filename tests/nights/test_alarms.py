"""A cell that gets worse is told once, after a rerun said what it was; a quiet one never."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.artifacts import (
    AlarmCause,
    AlarmKind,
    CellEnding,
    Decision,
    NightRow,
    Purpose,
    TaskNight,
    Tier,
)
from harness.nights import Where, alarms, raised, raised_by, unwatched
from tests.nights.rows import beside, measured, night_row, series


def rerun(row: NightRow, *, lost: int, host: str = "node", **changes: object) -> NightRow:
    return replace(
        row,
        purpose=Purpose.CONFIRMATION,
        attempt=row.attempt + 1,
        host=host,
        against=(beside(lost=lost),),
        **changes,  # type: ignore[arg-type]
    )


def told(rows: Sequence[NightRow]) -> list[tuple[str, str, str, str]]:
    return [(a.night[-2:], a.kind.value, a.since[-2:], a.cause.value) for a in alarms(rows)]


def test_a_quiet_cell_raises_nothing() -> None:
    assert told(series(*[0, 1, 2, 1, 0, 3, 2] * 3)) == []


def test_a_loss_that_one_night_proves_is_raised_in_it() -> None:
    assert told(series(0, 0, 20)) == [("03", "loss", "03", "unconfirmed")]


def test_a_slow_drift_is_raised_and_dated_though_no_night_proves_it() -> None:
    rows = series(0, 0, 3, 5, 7, 8, 8, 8, 8, 8, 8, 8)
    assert all(one.p_value > 0.001 for row in rows for one in row.against if one.p_value)
    assert told(rows)[0] == ("11", "drift", "05", "unconfirmed")


def test_no_single_night_raises_a_drift() -> None:
    bad = beside(lost=9, spread=0.0001)
    rows = [*series(0, 0), night_row("a", "2031-01-03", against=(bad,)), *series(0, 0)]
    assert told(rows) == []


def test_an_alarm_that_is_seen_again_elsewhere_is_real_and_told_once() -> None:
    rows = series(0, 20, 20, 20, 20)
    rows.insert(2, rerun(rows[1], lost=19, host="other"))
    assert told(rows) == [("02", "loss", "02", "real")]
    assert "seen again on other" in alarms(rows)[0].message


def test_a_cell_that_recovered_and_is_lost_again_is_told_again() -> None:
    rows = series(20, 0, 0, 0, 20)
    rows.insert(1, rerun(rows[0], lost=20, host="other"))
    assert [night for night, *_ in told(rows)] == ["01", "05"]


def standing_in(rows: Sequence[NightRow], night: str) -> list[tuple[str, bool]]:
    return [(one.alarm.night[-2:], one.alarm.stands) for one in raised_by(rows, night)]


def test_a_real_loss_that_is_still_there_is_told_in_every_later_night() -> None:
    rows = series(0, 20, 20, 20)
    rows.insert(2, rerun(rows[1], lost=19, host="other"))
    assert standing_in(rows, "2031-01-01") == []
    assert standing_in(rows, "2031-01-02") == [("02", True)]
    assert standing_in(rows, "2031-01-04") == [("02", True)]


def test_a_loss_that_is_gone_is_told_no_more() -> None:
    rows = series(20, 20, 0, 0)
    rows.insert(1, rerun(rows[0], lost=20, host="other"))
    assert standing_in(rows, "2031-01-02") == [("01", True)]
    assert standing_in(rows, "2031-01-04") == []


def test_a_loss_is_told_no_more_once_the_cell_is_signed_off_anew() -> None:
    rows = series(20, 20)
    rows.insert(1, rerun(rows[0], lost=20, host="other"))
    rows.append(night_row("a", "2031-01-03", against=(beside(lost=0, anchor="b" * 64),)))
    assert standing_in(rows, "2031-01-03") == []


def test_a_flaky_alarm_is_told_in_its_own_night_alone() -> None:
    rows = series(20, 0)
    rows.insert(1, rerun(rows[0], lost=0))
    assert standing_in(rows, "2031-01-01") == [("01", False)]
    assert standing_in(rows, "2031-01-02") == []


@pytest.mark.parametrize(
    ("again", "cause"),
    [
        ([("node", 20)], "real"),
        ([("node", 0)], "flaky"),
        ([("other", 20)], "real"),
        ([("other", 0)], "infrastructure"),
        ([("node", 20), ("other", 0)], "infrastructure"),
        ([("node", 0), ("other", 0)], "flaky"),
        ([("node", 0), ("other", 20)], "real"),
    ],
)
def test_reruns_tell_real_from_flaky_from_infrastructure(
    again: list[tuple[str, int]], cause: str
) -> None:
    (row,) = series(20)
    reruns = [rerun(row, lost=lost, host=host) for host, lost in again]
    assert [c for *_, c in told([row, *reruns])] == [cause]


def test_a_night_that_was_flaky_or_infrastructure_is_left_out_of_the_sum() -> None:
    rows = series(*[8] * 4, 40, 8, 8, 0)
    rows.insert(5, rerun(rows[4], lost=8))
    without = [row for row in rows if row.night != "2031-01-05"]
    assert told(rows)[1:] == told(without)


def test_an_alarm_that_was_seen_again_on_a_sick_host_alone_is_infrastructure() -> None:
    rows = series(20)
    rows += [night_row(f"bad {n}", "2031-01-01", CellEnding.INFRA_FAILED) for n in range(6)]
    rows += [night_row(f"good {n}", "2031-01-01", host=f"h{n % 3}") for n in range(12)]
    found = raised([*rows, rerun(rows[0], lost=20)])
    assert [(one.alarm.cause, one.ask) for one in found] == [
        (AlarmCause.INFRASTRUCTURE, Where.OTHER_HOST)
    ]


def test_a_rerun_of_other_bytes_confirms_nothing() -> None:
    row = replace(series(20)[0], digests={"checkpoint": "1"})
    other = rerun(row, lost=20, digests={"checkpoint": "2"})
    (alarm,) = alarms([row, other])
    assert alarm.cause is AlarmCause.UNCONFIRMED
    assert "other bytes" in alarm.message


def test_an_alarm_whose_reruns_all_fail_is_told_as_infrastructure() -> None:
    (row,) = series(20)
    failed = replace(rerun(row, lost=0), against=(), ending=CellEnding.INFRA_FAILED)
    first = [a.cause for a in alarms([row, failed])]
    assert (first, [a.cause for a in alarms([row, failed, replace(failed, attempt=3)])]) == (
        [AlarmCause.UNCONFIRMED],
        [AlarmCause.INFRASTRUCTURE],
    )


@pytest.mark.parametrize("purpose", [Purpose.RETRY, Purpose.CONFIRMATION])
def test_a_run_that_was_made_again_never_enters_the_statistics(purpose: Purpose) -> None:
    assert told(series(*[20] * 9, purpose=purpose)) == []


def test_a_new_anchor_begins_anew() -> None:
    rows = series(*[8] * 5)
    later = [
        replace(row, night=f"2031-02-{number:02}", against=(beside(lost=8, anchor="b" * 64),))
        for number, row in enumerate(rows, start=1)
    ]
    assert told([*rows, *later]) == []


def test_a_loss_over_all_tasks_is_not_said_twice() -> None:
    both = (beside(lost=20), beside("all tasks", lost=20))
    assert [a.what for a in alarms([night_row("a", "1", against=both)])] == ["add"]
    small = (beside(lost=7), beside("all tasks", lost=20))
    assert [a.what for a in alarms([night_row("a", "1", against=small)])] == ["all tasks"]


def speeds(*tokens_per_s: float) -> list[NightRow]:
    return [
        night_row(
            "a",
            f"2031-01-{night:02}",
            measures={"tokens_per_s": value},
            against=(measured("tokens_per_s", math.log(value / 100)),),
        )
        for night, value in enumerate(tokens_per_s, start=1)
    ]


def test_a_speed_that_falls_slowly_is_raised() -> None:
    rows = speeds(100, 101, 99, 100, 101, *[100 * 0.985**n for n in range(1, 16)])
    (first, *_) = alarms(rows)
    assert (first.kind, first.what) == (AlarmKind.DRIFT, "tokens_per_s")
    assert "% worse" in first.message


def test_a_speed_that_is_noisy_by_itself_raises_nothing() -> None:
    assert told(speeds(*[100, 80, 110, 85, 105, 75, 100, 90] * 3)) == []


def test_a_cell_that_is_compared_with_no_anchor_is_named() -> None:
    task = TaskNight(
        task="add",
        tier=Tier.CRITICAL,
        baseline=0.9,
        candidate=0.9,
        difference=0.0,
        low=-0.01,
        high=0.01,
        margin=0.05,
        num_items=1000,
        decision=Decision.GO,
    )
    rows = [
        night_row("a", "1", tasks=(task,), not_compared="no anchor"),
        night_row("b", "1", tasks=(task,), against=(beside(lost=0),)),
        night_row("c", "1", CellEnding.INFRA_FAILED, not_compared="nothing was scored"),
    ]
    assert unwatched(rows) == {"a": "no anchor"}
