"""Cells as processes: what is run again, what is not, and that nothing is lost or left."""

import fcntl
import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.artifacts import CellEnding, Purpose
from harness.interrupts import ToldToEndError
from harness.nightly.attempts import begin, end, find
from harness.nightly.confirming import prepare
from harness.nightly.running import CellState, Errand
from harness.nightly.slots import Gpu, Slots
from harness.processes import mark_of
from harness.rundir import open_run, read_recipe
from tests.nightly.conftest import Stage
from tests.nightly.test_matrix import CELL, matrix

REGULAR, RETRY = Purpose.REGULAR, Purpose.RETRY


def test_each_cell_has_a_row_with_its_ending(stage: Stage) -> None:
    stage.run(*stage.cells({"a": "go", "b": "no-go", "c": "inconclusive"}))
    assert stage.endings() == [
        ("a", CellEnding.GO, 1, REGULAR),
        ("b", CellEnding.NO_GO, 1, REGULAR),
        ("c", CellEnding.INCONCLUSIVE, 1, REGULAR),
    ]


def test_what_may_pass_is_run_again_and_never_counted(stage: Stage) -> None:
    rows = stage.run(*stage.cells({"a": "died go"}, retries=1))
    assert stage.endings() == [
        ("a", CellEnding.INFRA_FAILED, 1, REGULAR),
        ("a", CellEnding.GO, 2, RETRY),
    ]
    assert [row.is_counted for row in rows] == [True, False]


def test_a_cell_is_run_again_at_most_as_often_as_it_says(stage: Stage) -> None:
    stage.run(*stage.cells({"a": "died died died go"}, retries=2))
    assert stage.played("a") == 3


@pytest.mark.parametrize("play", ["broken", "no-go", "inconclusive", "refused"])
def test_what_would_end_the_same_way_is_not_run_again(stage: Stage, play: str) -> None:
    stage.run(*stage.cells({"a": f"{play} go"}, retries=3))
    assert stage.played("a") == 1


@pytest.mark.parametrize("play", ["killed", "told", "go+killed"])
def test_a_process_that_could_not_say_how_it_ended_is_run_again(stage: Stage, play: str) -> None:
    stage.run(*stage.cells({"a": f"{play} go"}, retries=1))
    assert [ending for _, ending, _, _ in stage.endings()] == ["infra-failed", "GO"]


@pytest.mark.parametrize("play", ["disk", "full", "go+full"])
def test_what_a_full_disk_ended_is_tried_again_when_it_is_typed_again(
    stage: Stage, play: str
) -> None:
    cells = stage.cells({"a": f"{play} go"}, retries=3)
    stage.run(*cells)
    assert stage.played("a") == 1
    stage.run(*cells)
    assert [ending for _, ending, _, _ in stage.endings()] == ["infra-failed", "GO"]


def test_a_loss_stands_though_its_process_was_killed_behind_it(stage: Stage) -> None:
    stage.run(*stage.cells({"a": "no-go+killed go"}, retries=1))
    assert [ending for _, ending, _, _ in stage.endings()] == ["NO-GO"]


def test_a_cell_that_was_refused_did_not_run_and_says_why(stage: Stage) -> None:
    (row,) = stage.run(*stage.cells({"a": "refused"}))
    assert (row.ending, row.message) == (CellEnding.NOT_RUN, "'x' is no model. Name one.")


def test_what_was_refused_is_run_when_it_is_typed_again(stage: Stage) -> None:
    cells = stage.cells({"a": "refused go"})
    stage.run(*cells)
    stage.run(*cells)
    assert [ending for _, ending, _, _ in stage.endings()] == ["not-run", "GO"]


def test_a_cell_that_has_ended_is_not_run_again_in_the_same_night(stage: Stage) -> None:
    cells = stage.cells({"a": "go"})
    stage.run(*cells)
    stage.run(*cells)
    assert (stage.played("a"), len(stage.endings())) == (1, 1)


class Ending:
    """Ends the nightly as soon as a cell runs, as a signal does."""

    def __init__(self, waits: Path) -> None:
        self.waits = waits

    def show(self, states: Sequence[CellState]) -> None:
        del states
        if self.waits.exists():
            raise ToldToEndError(signal.SIGTERM)


def interrupt(stage: Stage) -> None:
    """Run `a` until it waits, and end the nightly."""
    with pytest.raises(ToldToEndError):
        stage.runner(board=Ending(stage.folder / "a" / "waits")).run(
            stage.cells({"a": "wait go"}), share=1
        )


def test_a_nightly_that_is_told_to_end_leaves_no_process_and_no_row(stage: Stage) -> None:
    interrupt(stage)
    pid = int((stage.folder / "a" / "played").read_text().split()[0])
    assert (mark_of(pid), stage.endings()) == (None, [])


def test_typed_again_an_interrupted_attempt_goes_on_and_still_counts(stage: Stage) -> None:
    interrupt(stage)
    before = find(stage.place, "a", REGULAR, 1)
    (row,) = stage.run(*stage.cells({"a": "wait go"}))
    assert before is not None
    assert (row.ending, row.attempt, row.purpose) == (CellEnding.GO, 1, REGULAR)
    assert row.started == before.started


def test_a_run_whose_row_was_lost_gets_it_and_is_not_run_again(stage: Stage, runs: Path) -> None:
    cells = stage.cells({"a": "go"})
    attempt = begin(stage.place, "a", REGULAR, 1)
    (runs / "go").rename(stage.place.run_dir("a", REGULAR))
    try:
        end(stage.place, attempt, 0)
        (row,) = stage.run(*cells)
    finally:
        stage.place.run_dir("a", REGULAR).rename(runs / "go")
    assert row.ending is CellEnding.GO
    assert not (stage.folder / "a" / "played").exists()


class Release:
    """Lets a lock go when it was seen that the cell is elsewhere."""

    def __init__(self, lock: int) -> None:
        self.lock, self.seen = lock, ""

    def show(self, states: Sequence[CellState]) -> None:
        if not self.seen:
            self.seen = states[0].what
            os.close(self.lock)


def test_a_cell_that_another_process_is_at_waits_for_it(stage: Stage) -> None:
    cells = stage.cells({"a": "go"})
    stage.place.cell("a").mkdir(parents=True)
    lock = os.open(stage.place.cell("a") / "cell.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    board = Release(lock)
    stage.runner(board=board).run(cells, share=1)
    assert (board.seen, stage.endings()[0][1]) == ("elsewhere", CellEnding.GO)


def test_two_nightlies_on_one_folder_run_each_cell_once(stage: Stage) -> None:
    cells = stage.cells({"a": "go", "b": "no-go", "c": "go"})
    runners = [stage.runner() for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda runner: runner.run(cells, share=1), runners))
    assert sorted(cell for cell, _, _, _ in stage.endings()) == ["a", "b", "c"]
    assert [stage.played(cell.name) for cell in cells] == [1, 1, 1]


def test_two_nightlies_confirm_an_alarm_once(stage: Stage) -> None:
    (cell,) = stage.cells({"a": "go"})
    stage.run(cell)
    for _ in range(2):  # the other one has waited for the cell
        stage.runner().make([Errand(cell, Purpose.CONFIRMATION, 1)], share=1)
    assert [purpose for _, _, _, purpose in stage.endings()] == [REGULAR, Purpose.CONFIRMATION]


def test_a_nightly_that_waited_for_one_that_died_makes_the_retry(stage: Stage, runs: Path) -> None:
    """The other one has brought the first attempt to its end, and was killed before its row."""
    (cell,) = stage.cells({"a": "go"}, retries=1)
    shutil.copytree(runs / "died", stage.place.run_dir("a", REGULAR))
    end(stage.place, begin(stage.place, "a", REGULAR, 1), 3)
    stage.runner().make([Errand(cell, REGULAR, 1)], share=1)
    assert stage.endings() == [
        ("a", CellEnding.INFRA_FAILED, 1, REGULAR),
        ("a", CellEnding.GO, 2, RETRY),
    ]


def test_cells_without_gpus_see_none(stage: Stage) -> None:
    stage.run(*stage.cells({"a": "go"}))
    assert (stage.folder / "a" / "played").read_text().split()[1:] == []


def test_a_cell_for_which_the_machine_is_too_small_did_not_run(stage: Stage) -> None:
    (row,) = stage.run(*stage.cells({"a": "go"}, gpus=2, hardware="H200"))
    assert row.ending is CellEnding.NOT_RUN
    assert row.message == "it needs 2 H200 GPUs, and this machine has 0"


GPUS = (Gpu("0", "NVIDIA H200"), Gpu("1", "NVIDIA L4"), Gpu("2", "NVIDIA H200"))


def test_cells_get_gpus_of_their_own_of_the_kind_that_they_ask_for(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, CELL | {"gpus": 1, "hardware": "h200"}).cells
    slots = Slots(GPUS, 1)
    assert [slots.take(cell), slots.take(cell), slots.take(cell)] == [
        (GPUS[0],),
        (GPUS[2],),
        None,
    ]


def test_gpus_that_are_given_back_are_taken_again(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, CELL | {"gpus": 2}).cells
    slots = Slots(GPUS, 1)
    taken = slots.take(cell)
    assert slots.take(cell) is None
    slots.give_back(taken or ())
    assert slots.take(cell) == taken


def test_as_many_cells_without_gpus_run_as_there_are_slots(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, CELL).cells
    slots = Slots((), 2)
    assert [slots.take(cell), slots.take(cell), slots.take(cell)] == [(), (), None]


def test_an_alarm_is_confirmed_on_the_bytes_that_the_run_has_made(stage: Stage) -> None:
    (cell,) = stage.cells({"a": "go"})
    stage.run(cell)
    prepare(stage.place, cell, Purpose.CONFIRMATION, 1)
    made = stage.place.run_dir("a", REGULAR)
    again = stage.place.run_dir("a", Purpose.CONFIRMATION, 1)
    with open_run(again, read_recipe(made)):
        names = {file.name for file in again.iterdir()}
    assert (again / "checkpoint" / "config.json").samefile(made / "checkpoint" / "config.json")
    assert "verdict.json" not in names


def test_a_confirmation_is_a_row_of_its_own_and_never_counted(stage: Stage) -> None:
    (cell,) = stage.cells({"a": "go no-go"})
    stage.run(cell)
    stage.runner().make([Errand(cell, Purpose.CONFIRMATION, 1)], share=1)
    assert stage.endings()[1:] == [("a", CellEnding.NO_GO, 1, Purpose.CONFIRMATION)]
