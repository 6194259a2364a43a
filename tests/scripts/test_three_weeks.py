"""Three simulated weeks: every planted fault is found and named, and nothing else is told."""

import gc
from pathlib import Path

import numpy as np
import pytest

from scripts.three_weeks.found import lines_of, wrong_with
from scripts.three_weeks.planted import NUM_NIGHTS, PLANS, SICK, DrawnCell, Plan
from scripts.three_weeks.runs import job_of
from scripts.three_weeks.weeks import Nightly, Weeks
from tests.tiers import slow

FEW = (Plan("quiet"), Plan("worse", sudden=0.05, since=2), Plan("flaky", bad=0.05, since=1))


def drawn(folder: Path, plans: tuple[Plan, ...], num_nights: int, seed: int) -> Weeks:
    draws = np.random.default_rng([21, seed])
    job = job_of()
    gc.freeze()  # every stage collects garbage, and what was imported is none
    try:
        return Nightly(folder, job, plans, draws).run(num_nights)
    finally:
        gc.unfreeze()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    return drawn(tmp_path_factory.mktemp("few"), FEW, 2, seed=0)


@pytest.fixture(scope="module")
@slow("writes and judges more than two hundred runs")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    return drawn(tmp_path_factory.mktemp("whole"), PLANS, NUM_NIGHTS, seed=0)


def test_a_loss_and_a_flaky_night_are_found_in_two_nights(few: Weeks) -> None:
    lines = {line.what: line for line in lines_of(few, FEW)}
    assert [lines[plan.name].wrong for plan in FEW] == ["", "", ""]
    assert (lines["worse"].delay, lines["flaky"].delay) == (0, 0)
    assert "flaky: night 1" in lines["flaky"].found


def test_a_few_nights_have_every_row_and_the_right_exit_code(few: Weeks) -> None:
    assert list(wrong_with(few, FEW)) == []


def test_what_is_not_found_is_a_miss(few: Weeks) -> None:
    blind = few.__class__(few.rows, few.nights, (), few.num_written, few.bad_nights)
    wrong = {line.what: line.wrong for line in lines_of(blind, FEW)}
    assert wrong == {"quiet": "", "worse": "missed", "flaky": "missed", SICK: "too late"}


def test_a_quiet_cell_that_is_told_to_be_worse_is_wrong(few: Weeks) -> None:
    quiet = (Plan("worse"),)
    assert next(lines_of(few, quiet)).wrong == "a quiet cell was told to be worse"


def test_a_lost_row_is_wrong(few: Weeks) -> None:
    short = few.__class__(few.rows[:-1], few.nights, few.raised, few.num_written, few.bad_nights)
    assert any("rows were written" in why for why in wrong_with(short, FEW))


def test_a_drift_grows_by_the_same_number_of_items_every_night() -> None:
    cell = DrawnCell(Plan("a", flips=0.0, slow=0.003, since=2), np.random.default_rng(0))
    lost = [int((~cell.night(night)["gsm8k"]).sum()) for night in range(4)]
    assert np.diff(lost).tolist() == [0, 4, 4]


def test_a_change_of_answers_loses_as_many_as_it_wins() -> None:
    plan = Plan("a", flips=0.0, changed=0.03, since=1)
    cell = DrawnCell(plan, np.random.default_rng(0))
    before, after = cell.night(0)["gsm8k"], cell.night(1)["gsm8k"]
    assert (before & ~after).sum() == (~before & after).sum() == round(0.015 * len(before))


def test_every_fault_of_three_weeks_is_found_and_no_quiet_cell_is_told(whole: Weeks) -> None:
    assert [line.what for line in lines_of(whole, PLANS) if line.wrong] == []
    assert list(wrong_with(whole, PLANS)) == []
