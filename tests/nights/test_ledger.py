"""The ledger keeps each row once, whoever writes, and tells every loss."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import CellEnding, Purpose
from harness.errors import DiskFullError, RunDirectoryError
from harness.nights import ledger as room
from harness.nights import open_ledger
from tests.nights.rows import night_row


def file_of(folder: Path) -> Path:
    return next(folder.glob("ledger.*.jsonl"))


def head_of(folder: Path) -> Path:
    return next(folder.glob("ledger.*.head.json"))


def as_machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(room, "_machine", lambda: name)


def nights(folder: Path) -> list[str]:
    return [row.night for row in open_ledger(folder).rows()]


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    row = night_row("a", "2031-01-01", CellEnding.NO_GO)
    assert open_ledger(tmp_path).append(row)
    assert open_ledger(tmp_path).rows() == (row,)


def test_the_same_row_is_not_added_twice(tmp_path: Path) -> None:
    row = night_row("a", "2031-01-01")
    assert [open_ledger(tmp_path).append(row) for _ in range(2)] == [True, False]
    assert len(open_ledger(tmp_path).rows()) == 1


def test_a_folder_without_a_ledger_has_no_rows_and_says_so(tmp_path: Path) -> None:
    assert open_ledger(tmp_path / "none").rows() == ()
    assert not open_ledger(tmp_path / "none").exists


def test_rows_that_several_processes_add_at_once_are_all_there(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_add_many, args=(tmp_path, n)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(row.cell for row in open_ledger(tmp_path).rows()) == sorted(
        f"{writer}-{number}" for writer in range(4) for number in range(10)
    )


def _add_many(folder: Path, writer: int) -> None:
    for number in range(10):
        open_ledger(folder).append(night_row(f"{writer}-{number}", "2031-01-01"))


def test_a_writer_that_is_killed_loses_and_doubles_no_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    told = tmp_path / "told"
    told.touch()
    for round_ in range(8):
        writer = context.Process(target=_add_and_tell, args=(tmp_path / "l", told, round_))
        writer.start()
        time.sleep(0.01 + 0.01 * round_)
        if writer.pid is not None:
            os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    kept = [row.cell for row in open_ledger(tmp_path / "l").rows()]
    assert set(told.read_text(encoding="utf-8").split()) <= set(kept)
    assert len(kept) == len(set(kept))


def _add_and_tell(folder: Path, told: Path, round_: int) -> None:
    for number in range(1000):
        open_ledger(folder).append(night_row(f"{round_}-{number}", "2031-01-01"))
        with told.open("a", encoding="utf-8") as file:
            file.write(f"{round_}-{number}\n")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_row_that_was_not_finished_is_none_and_may_be_added_again(
    tmp_path: Path, kept: float
) -> None:
    open_ledger(tmp_path).append(night_row("a", "2031-01-01"))
    before, head = file_of(tmp_path).read_bytes(), head_of(tmp_path).read_bytes()
    row = night_row("b", "2031-01-01")
    open_ledger(tmp_path).append(row)
    line = file_of(tmp_path).read_bytes()[len(before) :]
    file_of(tmp_path).write_bytes(before + line[: int(kept * len(line))])
    head_of(tmp_path).write_bytes(head)
    assert [r.cell for r in open_ledger(tmp_path).rows()] == ["a"]
    assert open_ledger(tmp_path).append(row)
    assert [r.cell for r in open_ledger(tmp_path).rows()] == ["a", "b"]


def test_a_whole_row_whose_writer_was_killed_before_it_could_say_so_is_kept(tmp_path: Path) -> None:
    open_ledger(tmp_path).append(night_row("a", "2031-01-01"))
    head = head_of(tmp_path).read_bytes()
    open_ledger(tmp_path).append(night_row("b", "2031-01-01"))
    head_of(tmp_path).write_bytes(head)
    assert not open_ledger(tmp_path).append(night_row("b", "2031-01-01"))
    open_ledger(tmp_path).append(night_row("c", "2031-01-01"))
    assert [row.cell for row in open_ledger(tmp_path).rows()] == ["a", "b", "c"]


def _cut_last(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _cut_first(lines: list[bytes]) -> list[bytes]:
    return lines[1:]


def _cut_middle(lines: list[bytes]) -> list[bytes]:
    return [lines[0], *lines[2:]]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [lines[1], lines[0], *lines[2:]]


def _edit_last(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].replace(b"NO-GO", b"GO")]


def _edit_number(lines: list[bytes]) -> list[bytes]:
    values = json.loads(lines[-1])
    values["order"] = 1
    return [*lines[:-1], json.dumps(values).encode() + b"\n"]


def _cut_feed(lines: list[bytes]) -> list[bytes]:
    return [*lines[:-1], lines[-1].rstrip(b"\n")]


def _empty(lines: list[bytes]) -> list[bytes]:
    return lines[:0]


@pytest.mark.parametrize(
    "change",
    [_cut_last, _cut_first, _cut_middle, _swap, _edit_last, _edit_number, _cut_feed, _empty],
)
def test_lines_that_were_changed_or_taken_out_are_told(tmp_path: Path, change: object) -> None:
    for cell in "abc":
        open_ledger(tmp_path).append(night_row(cell, "2031-01-01", CellEnding.NO_GO))
    reader = open_ledger(tmp_path)
    reader.rows()
    lines = file_of(tmp_path).read_bytes().splitlines(keepends=True)
    file_of(tmp_path).write_bytes(b"".join(change(lines)))  # type: ignore[operator]
    with pytest.raises(RunDirectoryError, match="was changed after harness wrote it"):
        reader.rows()
    with pytest.raises(RunDirectoryError, match="was changed after harness wrote it"):
        open_ledger(tmp_path).rows()
    with pytest.raises(RunDirectoryError, match="was changed after harness wrote it"):
        open_ledger(tmp_path).append(night_row("d", "2031-01-01"))


@pytest.mark.parametrize("gone", ["jsonl", "head.json"])
def test_a_file_or_a_head_that_is_gone_is_told(tmp_path: Path, gone: str) -> None:
    open_ledger(tmp_path).append(night_row("a", "2031-01-01"))
    next(tmp_path.glob(f"ledger.*.{gone}")).unlink()
    with pytest.raises(RunDirectoryError, match="was changed after harness wrote it"):
        open_ledger(tmp_path).rows()


def test_all_of_a_machine_being_gone_is_told_by_what_another_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in "xy":
        as_machine(monkeypatch, machine)
        open_ledger(tmp_path).append(night_row(machine, "2031-01-01"))
    for path in tmp_path.glob("ledger.x.*"):
        path.unlink()
    with pytest.raises(RunDirectoryError, match=r"ledger\.x\.jsonl.*has 0 lines.*saw 1"):
        open_ledger(tmp_path).rows()


def test_machines_write_files_of_their_own_and_read_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in "xyx":
        as_machine(monkeypatch, machine)
        open_ledger(tmp_path).append(night_row(f"on {machine}", "2031-01-01", host=machine))
    assert [row.host for row in open_ledger(tmp_path).rows()] == ["x", "y"]
    assert len(list(tmp_path.glob("ledger.*.jsonl"))) == 2


def test_ledgers_merge_to_the_same_rows_in_any_order_and_as_often_as_one_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in "xyz"]
    for folder in folders:
        as_machine(monkeypatch, folder.name)
        for night in ("2031-01-02", "2031-01-10"):
            open_ledger(folder).append(night_row(folder.name, night))
    as_machine(monkeypatch, "collector")
    first, second = tmp_path / "one", tmp_path / "two"
    added = [open_ledger(first).merge(folder) for folder in folders * 2]
    for folder in (*reversed(folders), first):
        open_ledger(second).merge(folder)
    assert added == [2, 2, 2, 0, 0, 0]
    assert open_ledger(first).rows() == open_ledger(second).rows()
    assert nights(first) == ["2031-01-02"] * 3 + ["2031-01-10"] * 3


def test_a_ledger_that_was_cut_is_not_merged(tmp_path: Path) -> None:
    for cell in "ab":
        open_ledger(tmp_path / "theirs").append(night_row(cell, "2031-01-01"))
    path = file_of(tmp_path / "theirs")
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(RunDirectoryError, match="has 1 lines, and its head says 2"):
        open_ledger(tmp_path / "ours").merge(tmp_path / "theirs")


def test_a_folder_without_a_ledger_is_not_merged(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds no ledger"):
        open_ledger(tmp_path / "ours").merge(tmp_path)


def test_a_clock_that_is_set_back_neither_hides_nor_reorders_a_row(tmp_path: Path) -> None:
    written = ["2031-01-30", "2031-01-31", "2031-01-01", "2031-02-01"]
    for night in written:
        open_ledger(tmp_path).append(night_row("a", night, started=f"{night}T00:00:00Z"))
    assert nights(tmp_path) == written


def test_a_clock_that_is_set_back_on_one_machine_keeps_its_order_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, written in (("x", ["9", "10", "3", "11"]), ("y", ["9", "10", "11", "12"])):
        as_machine(monkeypatch, machine)
        for night in written:
            open_ledger(tmp_path / machine).append(night_row(machine, night))
    as_machine(monkeypatch, "collector")
    for machine in "yx":
        open_ledger(tmp_path / "all").merge(tmp_path / machine)
    rows = open_ledger(tmp_path / "all").rows()
    assert [row.night for row in rows if row.cell == "x"] == ["9", "10", "3", "11"]
    assert [row.night for row in rows if row.cell == "y"] == ["9", "10", "11", "12"]
    assert [row.night for row in rows][-1] == "12"


def test_a_full_disk_leaves_the_ledger_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ledger(tmp_path).append(night_row("a", "2031-01-01"))
    before = file_of(tmp_path).read_bytes()
    real = os.pwrite

    def short(file: int, content: bytes, at: int) -> int:
        if len(content) < 100:
            return real(file, content, at)
        real(file, content[: len(content) // 2], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", short)
        with pytest.raises(DiskFullError, match="no space is left"):
            open_ledger(tmp_path).append(night_row("b", "2031-01-01"))
    assert file_of(tmp_path).read_bytes() == before
    assert open_ledger(tmp_path).append(night_row("b", "2031-01-01"))


def test_a_reader_sees_what_others_add(tmp_path: Path) -> None:
    reader = open_ledger(tmp_path)
    for number in range(1, 4):
        open_ledger(tmp_path).append(night_row(str(number), "2031-01-01"))
        assert len(reader.rows()) == number
    assert not reader.append(night_row("2", "2031-01-01"))


def test_only_a_regular_go_is_green_and_counted() -> None:
    rows = [night_row("a", "1", ending) for ending in CellEnding]
    again = replace(night_row("a", "1"), purpose=Purpose.RETRY, attempt=2)
    assert [row.ending for row in rows if row.is_green] == [CellEnding.GO]
    assert again.is_green
    assert not again.is_counted


def test_a_row_of_a_later_version_is_told_where_it_is_not_known(tmp_path: Path) -> None:
    row = night_row("a", "2031-01-01")
    object.__setattr__(row, "ending", "melted")
    open_ledger(tmp_path).append(row)
    with pytest.raises(RunDirectoryError, match="a row that this version of harness does not know"):
        open_ledger(tmp_path).rows()
