"""A drill that broke off goes on; one that was finished, or another one, begins anew."""

from pathlib import Path

import pytest

from harness.artifacts import Decision
from harness.drill import DrillSetting, drill, run
from harness.drill.defenses import Defense
from harness.drill.fault import Kind
from harness.drill.result import Attempt, Correct, Drilled
from harness.errors import ExitCode

FAULTS = ("layer-zeroed", "expert-input-scales-deleted", "nibbles-swapped")


class Runs:
    """What is done instead of runs, and what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: list[str] = []
        self.fresh: list[bool] = []
        self.reasons: dict[str, Defense | None] = {}
        self.breaks_at: str | None = None
        monkeypatch.setattr(run, "_run_correct", self.correct)
        monkeypatch.setattr(run, "_put_back", self.put_back)

    def correct(self, setting: DrillSetting, name: str, *, fresh: bool) -> Correct:
        (setting.folder / "correct" / name).mkdir(parents=True, exist_ok=True)
        self.fresh.append(fresh)
        if self.breaks_at == name:
            raise KeyboardInterrupt
        return Correct(
            format=name,
            decision=Decision.GO,
            exit_code=ExitCode.GO,
            message="GO",
            seconds=1.0,
            folder=str(setting.folder),
        )

    def put_back(self, setting: DrillSetting, name: str) -> Drilled:
        if name == self.breaks_at:
            raise KeyboardInterrupt
        self.faults.append(name)
        first = Attempt(
            off=None,
            caught_by=self.reasons.get(name, Defense.VERIFY),
            evidence=("a-check",),
            decision=Decision.NO_GO,
            exit_code=ExitCode.NO_GO,
            message="why",
            seconds=1.0,
        )
        return Drilled(
            fault=name,
            incident="https://github.com/a/b/issues/1",
            what="it",
            kind=Kind.FILE,
            format="nvfp4",
            first=first,
            second=None,
            folder=str(setting.folder),
        )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


@pytest.fixture
def setting(tmp_path: Path) -> DrillSetting:
    return DrillSetting(folder=tmp_path / "drill", suite="drill", engine="reference")


def break_off(runs: Runs, setting: DrillSetting) -> None:
    runs.breaks_at = FAULTS[1]
    with pytest.raises(KeyboardInterrupt):
        drill(setting, FAULTS, ())
    assert runs.faults == [FAULTS[0]]
    runs.breaks_at = None


def test_what_was_done_before_it_broke_off_is_not_done_again(
    runs: Runs, setting: DrillSetting
) -> None:
    break_off(runs, setting)
    report = drill(setting, FAULTS, ())
    assert runs.faults == list(FAULTS)
    assert report.finished
    assert [one.fault for one in report.drilled] == list(FAULTS)


def test_one_that_broke_off_in_its_first_run_goes_on(runs: Runs, setting: DrillSetting) -> None:
    runs.breaks_at = "nvfp4"
    with pytest.raises(KeyboardInterrupt):
        drill(setting, FAULTS, ())
    runs.breaks_at = None
    assert drill(setting, FAULTS, ()).finished


def test_what_was_not_caught_is_tried_again(runs: Runs, setting: DrillSetting) -> None:
    runs.reasons[FAULTS[0]] = None
    break_off(runs, setting)
    runs.reasons.clear()
    assert drill(setting, FAULTS, ()).exit_code == 0
    assert runs.faults == [FAULTS[0], *FAULTS]


def test_fresh_forgets_it(runs: Runs, setting: DrillSetting) -> None:
    break_off(runs, setting)
    drill(setting, FAULTS, (), fresh=True)
    assert runs.faults == [FAULTS[0], *FAULTS]
    assert runs.fresh == [False, True]


OTHERS = (
    DrillSetting(folder=Path(), suite="drill", engine="vllm"),
    DrillSetting(folder=Path(), suite="canary", engine="reference"),
    DrillSetting(folder=Path(), suite="drill", engine="reference", engine_args=("a=1",)),
)


@pytest.mark.parametrize("other", OTHERS)
def test_another_drill_in_the_same_folder_begins_anew(
    runs: Runs, setting: DrillSetting, other: DrillSetting
) -> None:
    break_off(runs, setting)
    drill(other._replace(folder=setting.folder), FAULTS, ())
    assert runs.faults == [FAULTS[0], *FAULTS]


def test_a_finished_drill_is_done_again(runs: Runs, setting: DrillSetting) -> None:
    drill(setting, FAULTS, ())
    drill(setting, FAULTS, ())
    assert runs.faults == [*FAULTS, *FAULTS]


def test_other_faults_than_those_asked_for_are_left_out(runs: Runs, setting: DrillSetting) -> None:
    break_off(runs, setting)
    report = drill(setting, FAULTS[1:], ())
    assert [one.fault for one in report.drilled] == list(FAULTS[1:])
