"""`harness suite new` on the canary and a folder of own tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.preflight import preflight_baseline
from harness.recipe import Request, load_suite
from tests.own_tasks import GENERATED, OwnTasks
from tests.tiers import slow
from tests.typed import Done

Cli = Callable[..., Done]
NEW = ("suite", "new", "--baseline", "canary", "--engine", "reference")


class Made(NamedTuple):
    own: OwnTasks
    file: Path
    done: Done


@pytest.fixture(scope="session")
@slow("scores the canary twice, and a candidate that is made")
def made(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Made:
    own = OwnTasks(tmp_path_factory.mktemp("new") / "mine")
    file = own.root / "proposed.yaml"
    typed = (*NEW, "--tasks", own.folder, "--out", file, "--no-chat", "--json")
    done = cli(*typed, "--qformat", "nvfp4", "--calib-size", "16")
    assert done.code == 0, done.err
    return Made(own, file, done)


def test_the_suite_that_is_written_is_sound_and_can_decide(cli: Cli, made: Made) -> None:
    done = cli("suite", "check", made.file, "--model", "canary", "--json")
    assert (done.code, done.json["mistakes"]) == (0, [])
    assert made.done.json["joint_probability_of_go"] >= 0.8
    assert [one["tier"] for one in made.done.json["tasks"]] == ["critical", "critical"]


def test_its_baseline_is_kept_for_the_next_gate(made: Made, baselines: Path) -> None:
    request = Request(model="canary", suite=str(made.file), engine="reference")
    key = preflight_baseline(request).inputs.key
    assert key.startswith(made.done.json["baseline_key"])
    assert (baselines / made.done.json["baseline_key"] / "entry.json").is_file()


def test_each_number_has_its_reason(made: Made) -> None:
    text = made.file.read_text()
    for words in ("measured on a candidate", "the least within which", "one of 2 choices"):
        assert words in text
    assert load_suite(str(made.file)).tasks_from == (str(made.own.folder),)


def test_a_file_that_is_there_is_left_alone(cli: Cli, made: Made) -> None:
    before = made.file.read_bytes()
    done = cli(*NEW, "--tasks", made.own.folder, "--out", made.file)
    assert done.code == 2
    assert "is there already" in done.err
    assert made.file.read_bytes() == before


@pytest.mark.usefixtures("lm_eval_index")
def test_mistakes_are_told_before_anything_is_measured(cli: Cli, tmp_path: Path) -> None:
    own = OwnTasks(tmp_path / "mine")
    own.write_task(GENERATED, doc_to_text="{{promt}}")
    file = own.root / "proposed.yaml"
    done = cli(*NEW, "--tasks", "own_next,nowhere", "--tasks-from", own.folder, "--out", file)
    assert done.code == 2
    assert "'promt'" in done.err
    assert "unknown task: 'nowhere'" in done.err
    assert not file.exists()
