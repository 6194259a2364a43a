"""What came of a night: the exit code, what is gathered, and what people and a CI are told."""

import io
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness.artifacts import (
    Alarm,
    AlarmCause,
    AlarmKind,
    CellEnding,
    CellWaiver,
    NightRow,
    Purpose,
)
from harness.errors import ExitCode, RunDirectoryError
from harness.nightly import (
    Cell,
    Matrix,
    NightOutcome,
    Place,
    annotations_of,
    collect,
    junit_of,
    lines_of,
    write_reports,
)
from harness.nightly.attempts import begin, end, lock_cell
from harness.nightly.board import table_of
from harness.nightly.outcome import CellOutcome, outcomes_of
from harness.nightly.running import CellState
from harness.nightly.told import markdown_of
from harness.nights import open_ledger
from tests.nightly.conftest import Stage
from tests.nights.rows import night_row

TODAY = datetime.now(UTC).date()
NONE = night_row("canary", "n1", CellEnding.NOT_RUN, exit_code=None, host="")


def stands(*rows: NightRow) -> CellOutcome:
    """Return how the cell `canary` ended in the night `n1`."""
    (one,) = outcomes_of(["canary"], "n1", rows)
    return one


def ended(ending: CellEnding, *, expires: int | None = None, **keys: Any) -> CellOutcome:  # noqa: ANN401
    """Return how it ended, with a waiver that expires so many days from now."""
    day = TODAY + timedelta(days=expires or 0)
    waiver = None if expires is None else CellWaiver(reason="r", approver="A", expires=day)
    row = night_row("canary", "n1", ending, waiver=waiver, ended=f"{TODAY}T00:00:00Z")
    return stands(replace(row, **keys))


def night(*cells: CellOutcome, alarms: tuple[Alarm, ...] = ()) -> NightOutcome:
    return NightOutcome(matrix="m", night="n1", cells=cells, alarms=alarms)


def alarm(cause: AlarmCause) -> Alarm:
    return Alarm(
        cell="canary",
        night="n1",
        kind=AlarmKind.LOSS,
        what="add",
        since="n0",
        cause=cause,
        message="2 points",
    )


@pytest.mark.parametrize("ending", list(CellEnding))
def test_only_go_ends_with_0(ending: CellEnding) -> None:
    code = night(ended(ending)).exit_code
    assert (code == ExitCode.GO) == (ending is CellEnding.GO)


def test_the_worst_cell_decides_in_the_order_of_the_contract() -> None:
    found = {code: ended(CellEnding.GO) for code in (1, 3, 4, 5, 0)}
    codes = [1, 3, 4, 5, 0]
    cells = [CellOutcome(**{**_fields(found[code]), "exit_code": code}) for code in codes]
    assert [night(*cells[place:]).exit_code for place in range(5)] == codes


def _fields(one: CellOutcome) -> dict[str, Any]:
    return {name: getattr(one, name) for name in CellOutcome.__dataclass_fields__}


def test_a_bug_in_harness_is_the_worst_of_all() -> None:
    assert night(ended(CellEnding.INFRA_FAILED, exit_code=1)).exit_code == ExitCode.BUG


def test_a_confirmation_is_not_how_a_cell_ended() -> None:
    rows = [
        night_row("canary", "n1", CellEnding.NO_GO, exit_code=4),
        night_row("canary", "n1", purpose=Purpose.CONFIRMATION),
    ]
    assert stands(*rows).row.ending is CellEnding.NO_GO


def test_a_run_wins_over_a_row_that_says_it_did_not_run() -> None:
    rows = [night_row("canary", "n1"), NONE]
    assert stands(*rows).row.ending is CellEnding.GO


def test_a_waiver_excuses_an_ending_until_its_day() -> None:
    assert night(ended(CellEnding.NO_GO, expires=0)).exit_code == ExitCode.GO
    assert night(ended(CellEnding.NO_GO, expires=-1)).exit_code == ExitCode.NO_GO


def test_a_waiver_excuses_no_cell_that_did_not_run() -> None:
    found = ended(CellEnding.NOT_RUN, expires=9)
    assert (found.waived, found.exit_code) == (False, ExitCode.STAGE_FAILED)


def test_a_waiver_excuses_no_bug() -> None:
    found = ended(CellEnding.INFRA_FAILED, expires=9, exit_code=1)
    assert (found.waived, found.exit_code) == (False, ExitCode.BUG)


@pytest.mark.parametrize("cause", list(AlarmCause))
def test_an_alarm_that_was_confirmed_is_no_go(cause: AlarmCause) -> None:
    code = night(ended(CellEnding.GO), alarms=(alarm(cause),)).exit_code
    expected = {AlarmCause.REAL: ExitCode.NO_GO, AlarmCause.UNCONFIRMED: ExitCode.INCONCLUSIVE}
    assert code == expected.get(cause, ExitCode.GO)


def whole(cells: tuple[Cell, ...]) -> Matrix:
    return Matrix(name="m", path=Path("m.yaml"), slots=1, cells=cells)


def gathered(stage: Stage, cells: tuple[Cell, ...], *sources: Path) -> NightOutcome:
    return collect(whole(cells), cells, stage.place, sources)


def test_a_cell_that_nobody_ran_is_written_down_as_not_run(stage: Stage) -> None:
    cells = stage.cells({"a": "go", "b": "go"})
    stage.run(cells[0])
    assert gathered(stage, cells).exit_code == ExitCode.STAGE_FAILED
    assert stage.endings()[-1][:2] == ("b", CellEnding.NOT_RUN)


def test_gathering_twice_says_the_same(stage: Stage) -> None:
    cells = stage.cells({"a": "go", "b": "go"})
    stage.run(cells[0])
    assert gathered(stage, cells) == gathered(stage, cells)


def test_a_run_that_has_not_come_to_its_end_is_said_and_never_green(stage: Stage) -> None:
    cells = stage.cells({"a": "go"})
    begin(stage.place, "a", Purpose.REGULAR, 1)
    (one,) = gathered(stage, cells).cells
    assert "has not come to its end" in one.row.message
    assert one.exit_code == ExitCode.STAGE_FAILED


def test_a_row_that_was_lost_is_made_of_the_run_that_is_there(stage: Stage, runs: Path) -> None:
    cells = stage.cells({"a": "go"})
    attempt = begin(stage.place, "a", Purpose.REGULAR, 1)
    shutil.copytree(runs / "no-go", stage.place.run_dir("a", Purpose.REGULAR))
    end(stage.place, attempt, 4)
    assert gathered(stage, cells).exit_code == ExitCode.NO_GO


def test_the_row_of_a_cell_at_which_a_nightly_is_at_work_is_left_to_that(
    stage: Stage, runs: Path
) -> None:
    cells = stage.cells({"a": "go"})
    shutil.copytree(runs / "no-go", stage.place.run_dir("a", Purpose.REGULAR))
    end(stage.place, begin(stage.place, "a", Purpose.REGULAR, 1), 4)
    lock = lock_cell(stage.place, "a")
    gathered(stage, cells)
    assert lock is not None
    os.close(lock)
    assert stage.endings() == [("a", CellEnding.NOT_RUN, 1, Purpose.REGULAR)]


def test_rows_and_reports_of_another_machine_are_gathered_without_weights(
    stage: Stage, tmp_path: Path
) -> None:
    cells = stage.cells({"a": "no-go"})
    stage.run(*cells)
    here = Place(tmp_path / "here", "n1")
    found = collect(whole(cells), cells, here, [stage.place.out])
    run = here.run_dir("a", Purpose.REGULAR)
    assert found.exit_code == ExitCode.NO_GO
    assert (run / "report.html").exists()
    assert not (run / "checkpoint").exists()


def test_a_folder_without_a_ledger_is_refused(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="holds no ledger"):
        gathered(stage, stage.cells({"a": "go"}), tmp_path / "empty")


def test_what_was_gathered_stays_when_it_is_gathered_again(stage: Stage, tmp_path: Path) -> None:
    cells = stage.cells({"a": "go"})
    stage.run(*cells)
    here = Place(tmp_path / "here", "n1")
    for _ in range(2):
        collect(whole(cells), cells, here, [stage.place.out])
    assert len(open_ledger(here.out).rows()) == 1


def cases(document: str) -> dict[str, list[str]]:
    found = ET.fromstring(document).iter("testcase")  # noqa: S314 - it is ours
    return {c.get("name", ""): [p.tag for p in c if p.tag != "properties"] for c in found}


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (CellEnding.GO, "system-out"),
        (CellEnding.NO_GO, "failure"),
        (CellEnding.INCONCLUSIVE, "error"),
        (CellEnding.NOT_RUN, "error"),
        (CellEnding.NO_BASELINE, "error"),
        (CellEnding.INFRA_FAILED, "error"),
    ],
)
def test_in_junit_nothing_but_go_is_green(ending: CellEnding, kind: str) -> None:
    one = ended(ending, message="said")
    assert cases(junit_of(night(one)))["canary"][0] == kind


def test_in_junit_a_waived_cell_is_skipped_with_who_answers_for_it() -> None:
    document = junit_of(night(ended(CellEnding.NO_GO, expires=0)))
    assert cases(document)["canary"] == ["skipped"]
    assert "waived by A" in document


def test_in_junit_a_confirmed_alarm_fails() -> None:
    found = night(ended(CellEnding.GO), alarms=(alarm(AlarmCause.REAL),))
    assert cases(junit_of(found))["canary: add"] == ["failure"]


def test_github_is_told_each_cell_that_is_not_green() -> None:
    one = ended(CellEnding.NO_GO, message="50 % lost\nand: more")
    (line,) = annotations_of(night(one))
    assert line == "::error title=canary%3A NO-GO::50 %25 lost%0Aand: more"


def test_github_is_told_nothing_of_a_green_night() -> None:
    assert list(annotations_of(night(ended(CellEnding.GO)))) == []


def test_github_is_warned_of_what_is_waived() -> None:
    (line,) = annotations_of(night(ended(CellEnding.NO_GO, expires=0)))
    assert line.startswith("::warning ")


def test_no_message_breaks_the_table_of_the_page() -> None:
    page = markdown_of(night(ended(CellEnding.NO_GO, message="a | b\nc")))
    assert "a \\| b c |" in page


def test_the_reports_are_written(tmp_path: Path) -> None:
    place = Place(tmp_path, "n1")
    write_reports(night(ended(CellEnding.GO)), place)
    files = sorted(path.name for path in place.folder.iterdir())
    assert files == ["nightly.json", "nightly.md", "nightly.xml"]


def test_the_last_line_counts_what_is_green() -> None:
    cells = ended(CellEnding.GO), ended(CellEnding.NO_GO, expires=0)
    assert list(lines_of(night(*cells)))[-1] == "night n1 of m: 1 of 2 cells GO, 1 waived"


def test_the_table_shows_each_cell_on_one_line_whatever_it_printed() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    said = "[bold]not markup[/bold] " + "long " * 40
    states = [CellState("a", "running", "GPU 0", 2, 61.0, said), CellState("b", "waiting")]
    console.print(table_of(states))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # a StringIO
    assert len(lines) == 3
    assert "[bold]not markup" in lines[1]
    assert "0:01:01" in lines[1]
