"""`harness suite new` on the canary and a folder of own tasks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.preflight import preflight_baseline
from harness.recipe import Request, load_suite
from harness.score.outline import first_specs
from tests.own_tasks import CHOSEN, GENERATED, OwnTasks
from tests.tiers import slow
from tests.typed import Done, typed

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


def test_flips_are_measured_on_a_checkpoint_that_is_there(
    cli: Cli, made: Made, tmp_path: Path
) -> None:
    at = tmp_path / "made"
    small = ("--qformat", "nvfp4", "--calib-size", "16")
    assert cli("quantize", "--model", "canary", *small, "--out", at).code == 0
    file = tmp_path / made.file.name
    named = ("--tasks", made.own.folder, "--out", file, "--no-chat", "--json")
    done = cli(*NEW, *named, "--candidate", at / "checkpoint")
    assert done.code == 0, done.err
    for one, other in zip(done.json["tasks"], made.done.json["tasks"], strict=True):
        assert one["flips_reason"] == other["flips_reason"]


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


class Place(NamedTuple):
    """Own tasks, and a store in which nothing was measured yet."""

    own: OwnTasks
    store: Path

    def new(self, *words: object, out: str = "proposed.yaml", tasks: str = "") -> Done:
        """Type the command; whatever is wrong has to be told with nothing measured."""
        named = ("--tasks", tasks or self.own.folder, "--out", self.own.root / out, "--no-chat")
        done = typed(*NEW, *named, *words, env={"HARNESS_BASELINES": str(self.store)})
        assert done.code == 2, done.err
        assert not list(self.store.rglob("*.json*")), "a baseline was measured"
        return done


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(OwnTasks(tmp_path / "mine"), tmp_path / "store")


@pytest.mark.parametrize("out", ["mine", "mine.txt", "mine.YAML"])
def test_a_file_that_is_no_suites_by_its_name_is_refused_first(place: Place, out: str) -> None:
    assert "ends in .yaml or .yml" in place.new(out=out, tasks="nowhere").line()


@pytest.mark.parametrize("out", ["my suite.yaml", "-mine.yaml", "mîne.yml", f"{'m' * 65}.yaml"])
def test_a_file_whose_name_no_suite_can_have_is_refused_first(place: Place, out: str) -> None:
    line = place.new(out=out, tasks="nowhere").line()
    assert "is no name" in line
    assert out in line


@pytest.mark.usefixtures("lm_eval_index")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric_list": ["exact_match"]}, "in its metric_list"),
        ({"metric_list": "exact_match"}, "no list"),
        ({"num_fewshot": "few"}, "num_fewshot: 'few'"),
        ({"filter_list": ["plain"]}, "in its filter_list"),
        ({"output_type": "generate", "metric_list": None}, "has output_type 'generate'"),
        ({"output_type": ["generate_until"]}, "output_type: ['generate_until']"),
    ],
)
def test_a_malformed_task_is_told_with_all_others(
    place: Place, changes: dict[str, Any], said: str
) -> None:
    place.own.write_task(GENERATED, **changes)
    place.own.write_task(CHOSEN, doc_to_text="{{promt}}")
    done = place.new()
    assert said in done.err
    assert "'promt'" in done.err


@pytest.mark.usefixtures("lm_eval_index")
def test_a_task_of_lm_evals_own_is_taken_as_it_is() -> None:
    (spec,) = first_specs(["minerva_math_algebra"], [])  # its samples are a function
    assert spec.num_fewshot == 4


@pytest.mark.parametrize("option", ["--tasks", "--tasks-from"])
def test_the_home_of_nobody_is_told_in_one_line(place: Place, option: str) -> None:
    words = (option, "~no-such-user") if option == "--tasks-from" else ()
    done = place.new(*words, tasks="" if words else "~no-such-user")
    assert "no such user has a home" in done.line()


def test_a_name_that_is_too_long_for_a_path_is_an_unknown_task(place: Place) -> None:
    assert "unknown task" in place.new(tasks="a" * 300).err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--qformat", "nvpf4"), "nvpf4"),
        (("--qformat", "nvfp4", "--calib-data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--candidate", "no/such/folder"), "no/such/folder"),
        (("--candidate", "canary"), "declares no quantization"),
        (("--candidate", "canary", "--qformat", "nvfp4"), "Leave one of the two out"),
    ],
)
def test_a_candidate_is_refused_before_the_baseline_is_measured(
    place: Place, words: tuple[str, ...], said: str
) -> None:
    assert said in place.new(*words).err


@pytest.mark.parametrize("metric", ["exact_match", "f1"])
def test_nothing_is_drawn_of_choices_whatever_their_metric_is_called(
    place: Place, metric: str
) -> None:
    listed = [{"metric": metric, "aggregation": "mean", "higher_is_better": True}]
    place.own.write_task(CHOSEN, metric_list=listed)
    drawn = ("--temperature", "0.7", "--repeats", "2")
    done = place.new(*drawn, "--qformat", "nvpf4")  # told only where the tasks are sound
    assert "nvpf4" in done.line()
