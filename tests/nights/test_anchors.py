"""A night is compared, item by item, with the run of its cell that was signed off last."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import CellEnding, Purpose
from harness.errors import RunDirectoryError
from harness.nights import CellRun, anchor_of, open_ledger, row_of_run, set_anchor
from harness.preflight import Job
from tests.nights.runs import judged_run, night_job
from tests.nouns import task_spec

RUN = CellRun(cell="a/b", night="2031-01-01", attempt=1, purpose=Purpose.REGULAR, exit_code=0)
ALL = [1.0] * 300


def lost(number: int, won: int = 0) -> list[float]:
    """Return answers that lost the first items, and won the last ones."""
    return [0.0] * number + [1.0] * (300 - number - won) + [1.0] * won


@pytest.fixture(scope="module")
def job() -> Job:
    return night_job()


@pytest.fixture
def signed_off(job: Job, tmp_path: Path) -> Path:
    """Return a run that ended GO, with the A/A of its baseline."""
    rerun = [1.0] * 290 + [0.0] * 10
    return judged_run(
        job, tmp_path / "anchor", {"add": lost(3)}, baseline={"add": ALL}, rerun={"add": rerun}
    )


def test_a_night_says_which_items_it_lost_since_the_anchor(
    job: Job, signed_off: Path, tmp_path: Path
) -> None:
    set_anchor("a/b", signed_off, tmp_path)
    night = judged_run(job, tmp_path / "night", {"add": lost(9)}, baseline={"add": ALL})
    row = row_of_run(night, RUN, ledger=tmp_path)
    (one,) = row.against
    assert (one.num_lost, one.num_won, one.num_items) == (6, 0, 300)
    assert (one.difference, one.p_value) == (-6 / 300, 1 / 64)
    assert (row.ending, row.not_compared) == (CellEnding.GO, "")


def test_the_noise_of_a_comparison_is_that_of_the_rerun_on_record(
    signed_off: Path, tmp_path: Path
) -> None:
    anchor = set_anchor("a/b", signed_off, tmp_path)
    assert anchor.flip_rates == {"add": (10 + 2) / (300 + 4)}


def test_an_anchor_outlives_its_run_directory(job: Job, signed_off: Path, tmp_path: Path) -> None:
    made = set_anchor("a/b", signed_off, tmp_path)
    shutil.rmtree(signed_off)
    night = judged_run(job, tmp_path / "night", {"add": ALL}, baseline={"add": ALL})
    assert anchor_of("a/b", tmp_path) == made
    assert row_of_run(night, RUN, ledger=tmp_path).against[0].num_won == 3


def test_only_a_go_can_be_an_anchor(job: Job, tmp_path: Path) -> None:
    bad = judged_run(job, tmp_path / "bad", {"add": lost(200)}, baseline={"add": ALL})
    with pytest.raises(RunDirectoryError, match=r"ended with NO-GO, and an anchor"):
        set_anchor("a/b", bad, tmp_path)


def test_a_cell_without_an_anchor_says_so(signed_off: Path, tmp_path: Path) -> None:
    row = row_of_run(signed_off, RUN, ledger=tmp_path)
    assert row.against == ()
    assert "no run of the cell was signed off" in row.not_compared


def test_a_night_with_another_suite_is_not_compared_and_says_so(
    signed_off: Path, job: Job, tmp_path: Path
) -> None:
    set_anchor("a/b", signed_off, tmp_path)
    suite = replace(job.recipe.suite, tasks=(task_spec(margin=0.2),), digest="e" * 64)
    other = replace(job, recipe=replace(job.recipe, suite=suite))
    night = judged_run(other, tmp_path / "night", {"add": ALL}, baseline={"add": ALL})
    row = row_of_run(night, RUN, ledger=tmp_path)
    assert (row.ending, row.against) == (CellEnding.GO, ())
    assert "the suite is another than the anchor's" in row.not_compared


def test_an_anchor_whose_answers_were_edited_compares_nothing_and_says_so(
    job: Job, signed_off: Path, tmp_path: Path
) -> None:
    set_anchor("a/b", signed_off, tmp_path)
    (file,) = (tmp_path / "anchors").rglob("add.jsonl")
    file.write_text(file.read_text(encoding="utf-8").replace('"value": 0.0', '"value": 1.0'))
    night = judged_run(job, tmp_path / "night", {"add": ALL}, baseline={"add": ALL})
    row = row_of_run(night, RUN, ledger=tmp_path)
    assert row.against == ()
    assert "is not the file that was scored" in row.not_compared


def test_a_row_with_all_that_is_known_of_a_night_comes_back_from_the_ledger(
    job: Job, signed_off: Path, tmp_path: Path
) -> None:
    set_anchor("a/b", signed_off, tmp_path)
    night = judged_run(job, tmp_path / "night", {"add": lost(9)}, baseline={"add": ALL})
    row = row_of_run(night, RUN, ledger=tmp_path)
    open_ledger(tmp_path).append(row)
    assert open_ledger(tmp_path).rows() == (row,)
    assert row.tasks[0].candidate == pytest.approx(291 / 300)
    assert set(row.digests) >= {"recipe", "suite", "checkpoint", "baseline", "engine"}
