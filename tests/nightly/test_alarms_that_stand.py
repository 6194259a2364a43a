"""A real loss is told every night until it is gone: no later night is green with it."""

from dataclasses import replace
from pathlib import Path

from harness.artifacts import Purpose
from harness.errors import ExitCode
from harness.nightly import NightOutcome
from harness.nightly.alarming import alarms_of
from tests.nightly.test_matrix import CELL, matrix
from tests.nights.rows import beside, series


def test_a_loss_of_an_earlier_night_makes_the_next_a_no_go(tmp_path: Path) -> None:
    rows = series(0, 20, 20, cell="canary")
    again = {"purpose": Purpose.CONFIRMATION, "host": "other", "against": (beside(lost=20),)}
    rows.insert(2, replace(rows[1], **again))  # type: ignore[arg-type]
    found = alarms_of(rows, matrix(tmp_path, CELL).cells, "2031-01-03")
    assert [alarm.night for alarm in found] == ["2031-01-02"]
    night = NightOutcome(matrix="m", night="2031-01-03", cells=(), alarms=found)
    assert night.exit_code is ExitCode.NO_GO
