"""The localizer's table counts what was named right, and hides nothing that was not."""

from harness.artifacts import OriginStage
from harness.drill.fault import Kind
from scripts.localize_table import NO_RUN, NOTHING, TRUE, Row, table

ROWS = [
    Row("correct nvfp4", NOTHING, NOTHING, "nothing parts"),
    Row("a", OriginStage.EXPORT, OriginStage.EXPORT, "export: a | b"),
    Row("b", OriginStage.EXPORT, OriginStage.CALIBRATION, "calibration: c"),
    Row("c", NO_RUN, NO_RUN, "refused before there was a run"),
    Row("d", OriginStage.CALIBRATION, NO_RUN, "refused before there was a run"),
]


def test_a_fault_that_left_no_run_is_not_counted_as_named_right() -> None:
    assert (
        "1 of 4 faults are of the stage that is named, 2 of them left no run; 0 of 0 planted"
        in table(ROWS)
    )


def test_a_wrong_stage_is_marked() -> None:
    assert "| b | export | calibration **(wrong)** | calibration: c |" in table(ROWS)


def test_each_kind_of_fault_has_its_true_stage() -> None:
    assert set(TRUE) == set(Kind)
