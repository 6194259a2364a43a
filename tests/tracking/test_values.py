"""What a tracker is told of a row, and what it is never told."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import (
    Alarm,
    AlarmCause,
    AlarmKind,
    CellEnding,
    Decision,
    TaskNight,
    Tier,
)
from harness.tracking import tracked_run
from tests.nights.rows import night_row

TASK = TaskNight(
    task="add",
    tier=Tier.CRITICAL,
    baseline=0.9,
    candidate=0.8,
    difference=-0.1,
    low=-0.13,
    high=None,
    margin=0.03,
    num_items=300,
    decision=Decision.NO_GO,
)
ROW = replace(
    night_row("a/b", "n1", CellEnding.NO_GO),
    tasks=(TASK,),
    measures={"flip_rate": 0.12, "tokens_per_s": 640.0},
    digests={"recipe": "a" * 64, "environment": "b" * 64},
    reason_codes=("task-inferior",),
    exit_code=4,
    run_dir="cells/a",
)


def test_scores_come_with_the_bounds_of_their_difference(tmp_path: Path) -> None:
    metrics = tracked_run(ROW, tmp_path).metrics
    assert metrics == {
        "flip_rate": 0.12,
        "tokens_per_s": 640.0,
        "add/candidate": 0.8,
        "add/baseline": 0.9,
        "add/difference": -0.1,
        "add/difference_low": -0.13,
        "add/margin": 0.03,
        "add/num_items": 300.0,
    }


def test_what_was_run_is_known_by_its_digests(tmp_path: Path) -> None:
    params = tracked_run(ROW, tmp_path).params
    assert params["sha256.recipe"] == "a" * 64
    assert params["engine"] == "reference 0"


def test_the_verdict_is_a_tag_and_so_is_why(tmp_path: Path) -> None:
    tags = tracked_run(ROW, tmp_path).tags
    assert (tags["verdict"], tags["reason_codes"], tags["exit_code"]) == (
        *("NO-GO", "task-inferior", "4"),
    )


def test_an_alarm_of_the_cell_is_told_with_its_cause(tmp_path: Path) -> None:
    alarm = Alarm(
        cell="a/b",
        night="n1",
        kind=AlarmKind.DRIFT,
        what="add",
        since="n0",
        cause=AlarmCause.REAL,
        message="it drifts",
    )
    tags = tracked_run(ROW, tmp_path, [alarm, replace(alarm, cell="other")]).tags
    assert tags["alarms"] == "drift of add (real)"


def test_reports_go_along_where_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "cells" / "a").mkdir(parents=True)
    (tmp_path / "cells" / "a" / "report.html").write_text("<p>")
    assert tracked_run(ROW, tmp_path).files == (str(tmp_path / "cells/a/report.html"),)


def test_a_cell_that_did_not_run_is_told_too(tmp_path: Path) -> None:
    told = tracked_run(night_row("a", "n1", CellEnding.NOT_RUN, exit_code=None), tmp_path)
    assert (told.tags["verdict"], told.metrics, told.files) == ("not-run", {}, ())


@pytest.mark.parametrize("night", ["n1", "n2"])
def test_another_night_is_another_run(tmp_path: Path, night: str) -> None:
    same = tracked_run(replace(ROW, night=night), tmp_path).id == tracked_run(ROW, tmp_path).id
    assert same is (night == "n1")
