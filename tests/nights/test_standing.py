"""What a night came to: every cell has a row, only GO is green, and a waiver ends with its day."""

from datetime import UTC, date, datetime

import pytest

from harness.artifacts import CellEnding, CellWaiver, Purpose
from harness.errors import ExitCode
from harness.nights.standing import day_of, exit_code_of_night, is_excused, not_recorded, standing
from tests.nights.rows import night_row

WAIVER = CellWaiver(reason="a known fault", approver="A. Person", expires=date(2131, 1, 7))


@pytest.mark.parametrize("ending", CellEnding)
def test_only_go_ends_a_nightly_with_0(ending: CellEnding) -> None:
    code = exit_code_of_night([night_row("a", "1", ending)], ["a"], "1")
    assert (code == ExitCode.GO) is (ending is CellEnding.GO)


def test_a_cell_without_a_row_and_a_night_without_a_cell_are_not_0() -> None:
    rows = [night_row("a", "1")]
    assert exit_code_of_night(rows, ["a", "b"], "1") == ExitCode.STAGE_FAILED
    assert exit_code_of_night(rows, ["a"], "2") == ExitCode.STAGE_FAILED
    assert exit_code_of_night(rows, [], "1") == ExitCode.STAGE_FAILED


def test_the_worst_cell_decides() -> None:
    rows = [
        night_row("a", "1", CellEnding.INCONCLUSIVE),
        night_row("b", "1", CellEnding.NO_GO),
        night_row("c", "1"),
    ]
    assert exit_code_of_night(rows, "abc", "1") == ExitCode.NO_GO
    assert exit_code_of_night(rows, "ac", "1") == ExitCode.INCONCLUSIVE


def test_a_bug_is_worst_of_all() -> None:
    rows = [
        night_row("a", "1", CellEnding.INFRA_FAILED, exit_code=1),
        night_row("b", "1", CellEnding.NO_BASELINE),
    ]
    assert exit_code_of_night(rows, "ab", "1") == ExitCode.BUG


def test_cells_that_were_to_run_and_have_no_row_are_named() -> None:
    assert not_recorded("abc", [night_row("b", "1"), night_row("a", "2")], "1") == ("a", "c")


def test_the_last_attempt_stands_and_a_confirmation_does_not() -> None:
    rows = [
        night_row("a", "1", CellEnding.INFRA_FAILED),
        night_row("a", "1", CellEnding.NO_GO, attempt=2, purpose=Purpose.RETRY),
        night_row("a", "1", attempt=3, purpose=Purpose.CONFIRMATION),
    ]
    assert standing(rows, "1") == {"a": rows[1]}


def test_a_cell_that_ran_elsewhere_is_not_said_not_to_have_run() -> None:
    rows = [night_row("a", "1"), night_row("a", "1", CellEnding.NOT_RUN)]
    assert standing(rows, "1") == {"a": rows[0]}
    assert standing(rows[::-1], "1") == {"a": rows[0]}


def test_a_waiver_excuses_until_its_last_day_and_is_never_green() -> None:
    row = night_row("a", "1", CellEnding.NO_GO, waiver=WAIVER)
    assert [is_excused(row, date(2131, 1, day)) for day in (7, 8)] == [True, False]
    assert not row.is_green


def test_a_clock_that_is_set_back_brings_no_waiver_back() -> None:
    rows = [night_row("a", "1", ended="2131-01-09T01:00:00Z")]
    assert day_of(rows, datetime(2131, 1, 1, tzinfo=UTC)) == date(2131, 1, 9)
    assert day_of(rows, datetime(2131, 1, 10, tzinfo=UTC)) == date(2131, 1, 10)


def test_a_waiver_that_has_expired_excuses_no_cell() -> None:
    waived = night_row("a", "1", CellEnding.NO_GO, waiver=WAIVER, ended="2131-01-07T01:00:00Z")
    later = night_row("b", "1", ended="2131-01-08T01:00:00Z")
    assert exit_code_of_night([waived], "a", "1") == ExitCode.GO
    assert exit_code_of_night([waived, later], "ab", "1") == ExitCode.NO_GO
