"""`harness nightly` as it is typed."""

from pathlib import Path
from typing import Any

import pytest

from harness.nightly.running import Runner
from tests.nightly.conftest import Stage
from tests.nightly.test_matrix import CELL, GATE, write
from tests.typed import Done, typed


@pytest.fixture
def played(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(Runner, "program", stage.runner().program)
    return stage


def nightly(stage: Stage, *words: object, **env: str) -> Done:
    path = stage.folder / "matrix.yaml"
    where = "--out", stage.place.out, "--night", "n1"
    return typed("nightly", path, *where, *words, env={"GITHUB_ACTIONS": "", **env})


def test_a_night_ends_with_its_worst_cell_and_writes_reports(played: Stage) -> None:
    played.cells({"a": "go", "b": "no-go"})
    done = nightly(played)
    assert done.code == 4
    assert "night n1 of m: 1 of 2 cells GO" in done.out
    assert (played.place.folder / "nightly.xml").exists()


def test_one_cell_alone_ends_as_it_does_and_writes_no_report_of_all(played: Stage) -> None:
    played.cells({"a": "go", "b": "no-go"})
    assert nightly(played, "--only", "a").code == 0
    assert not (played.place.folder / "nightly.xml").exists()


def test_what_was_run_cell_by_cell_is_collected(played: Stage) -> None:
    played.cells({"a": "go", "b": "no-go"})
    for name in ("a", "b"):
        nightly(played, "--only", name)
    assert nightly(played, "--collect").code == 4


def test_a_cell_that_was_not_run_is_never_0_when_collected(played: Stage) -> None:
    played.cells({"a": "go", "b": "go"})
    nightly(played, "--only", "a")
    assert nightly(played, "--collect").code == 3


def test_what_is_printed_as_json_says_how_each_cell_ended(played: Stage) -> None:
    played.cells({"a": "go"})
    found = nightly(played, "--json").json
    assert (found["exit_code"], found["night"]["cells"][0]["row"]["ending"]) == (0, "GO")


def test_in_github_a_cell_that_failed_is_an_annotation_and_a_line_of_the_summary(
    played: Stage, tmp_path: Path
) -> None:
    played.cells({"a": "no-go"})
    summary = tmp_path / "summary.md"
    done = nightly(played, GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary))
    assert "::error title=a%3A NO-GO::" in done.err
    assert "| a | NO-GO |" in summary.read_text(encoding="utf-8")


def test_without_a_terminal_progress_is_a_line_a_change(played: Stage) -> None:
    played.cells({"a": "go"})
    lines = nightly(played).err.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["nightly:", "a", "begins"],
        ["nightly:", "a", "GO:"],
    ]


@pytest.mark.parametrize("night", ["../up", "", "a b", "-x"])
def test_a_night_that_is_no_name_of_a_folder_is_refused(played: Stage, night: str) -> None:
    played.cells({"a": "go"})
    assert nightly(played, f"--night={night}").code == 2


def check(folder: Path, *cells: dict[str, Any]) -> Done:
    return typed("nightly", write(folder, cells=list(cells)), "--dry-run")


def test_every_mistake_of_every_cell_is_found_by_a_dry_run(tmp_path: Path) -> None:
    wrong = {"name": "b", "model": "canary", "qformat": "nvfp5"}
    done = check(tmp_path, CELL | {"suite": "no-such"}, wrong, GATE)
    assert done.code == 2
    assert [line.split(":")[0] for line in done.out.splitlines()] == [
        *("canary", "b", "made-elsewhere"),
    ]
    assert "no-such" in done.out
    assert "nvfp5" in done.out


def test_a_cell_for_other_machines_is_checked_as_far_as_can_be(tmp_path: Path) -> None:
    done = check(tmp_path, CELL | {"gpus": 64, "suite": "drill"})
    assert done.code == 0
    assert "recipe and suite alone: it needs 64 GPUs" in done.out
