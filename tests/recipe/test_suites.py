"""What a suite's file may say of its statistics, and which of it a baseline depends on."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from harness import shipped
from harness.artifacts import Claim, Suite
from harness.errors import SuiteError
from harness.recipe import Request, load_recipe, load_suite

Write = Callable[..., Path]
SMOKE = yaml.safe_load((shipped.suites() / "smoke.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the smoke suite with changes to itself and to its first task; None removes a key."""

    def written(*, suite: dict[str, object] | None = None, **task: object) -> Path:
        first, *rest = SMOKE["tasks"]
        merged = {k: v for k, v in {**first, **task}.items() if v is not None}
        path = tmp_path / "suite.yaml"
        values = {**SMOKE, **(suite or {}), "tasks": [merged, *rest]}
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    return written


def loaded(path: Path) -> Suite:
    return load_suite(str(path))


RECOVERY = {"margin": None, "recovery": 0.99, "baseline_accuracy": 0.9}
CLUSTER = {"cluster": "subject", "clusters": 14}
REPEATS = {
    "repeats": 4,
    "temperature": 0.6,
    "item_sd": 0.1,
    "repeat_sd": 0.5,
    "baseline_accuracy": 0.5,
}
VALUES = {"value_range": [0, 100], "spread": 0.2}
RISE = {"margin": None, "relative_margin": 0.01, "spread": 0.1}


@pytest.mark.parametrize(
    "task", [RECOVERY, RISE, {"claim": "lossless"}, {"margin": 0.01}, {"flip_rate": 0.3}]
)
def test_what_is_made_of_the_scores_leaves_baselines_good(
    write: Write, task: dict[str, object]
) -> None:
    before = loaded(write()).digest
    assert loaded(write(**task)).digest == before


@pytest.mark.parametrize(
    "setting", [{"pooled_margin": 0.02}, {"max_rise": 0.0}, {"claim": "lossless"}]
)
def test_so_do_the_suites_own_settings_of_it(write: Write, setting: dict[str, object]) -> None:
    before = loaded(write()).digest
    assert loaded(write(suite=setting)).digest == before


@pytest.mark.parametrize(
    "task", [CLUSTER, VALUES, REPEATS, {"temperature": 0.6}, {"thinking_budget": 1024}]
)
def test_what_changes_the_samples_needs_another_baseline(
    write: Write, task: dict[str, object]
) -> None:
    before = loaded(write()).digest
    assert loaded(write(**task)).digest != before


def test_a_task_has_one_budget_for_its_thoughts(write: Write) -> None:
    thinks = {"thinking": True, "think_end_token": "</think>", "thinking_budget": 512}
    suite = loaded(write(suite=thinks, thinking_budget=1024))
    assert [suite.thinking_budget_of(task) for task in suite.tasks[:2]] == [1024, 512]
    with pytest.raises(SuiteError, match=r"tasks\.0\.thinking_budget"):
        loaded(write(suite=thinks, thinking_budget=-1))


def test_how_much_answers_vary_is_for_the_plan_alone(write: Write) -> None:
    before = loaded(write(**REPEATS)).digest
    assert loaded(write(**{**REPEATS, "item_sd": 0.2, "repeat_sd": 0.6})).digest == before


def test_a_suites_claim_is_that_of_each_task_that_makes_none(write: Write) -> None:
    claims = {task.claim for task in loaded(write(suite={"claim": "lossless"})).tasks}
    assert claims == {Claim.LOSSLESS}


def test_a_margin_that_is_typed_replaces_a_recovery(write: Write) -> None:
    first = load_suite(str(write(**RECOVERY)), margin=0.05).tasks[0]
    assert (first.margin, first.recovery) == (0.05, None)


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ({"recovery": 0.99, "baseline_accuracy": 0.9}, "give one of margin, recovery and"),
        ({"margin": None}, "give one of margin, recovery and relative_margin"),
        ({"margin": None, "relative_margin": 0.01}, "relative_margin needs the spread"),
        ({**RISE, "value_range": [0, 1]}, "a perplexity has no value_range"),
        ({"flip_rate": None}, "flip_rate is missing"),
        ({"chance": None}, "chance is missing"),
        ({"cluster": "subject"}, "cluster and clusters"),
        ({"clusters": 14}, "cluster and clusters"),
        ({"cluster": "subject", "clusters": 1}, "cluster and clusters"),
        ({"value_range": [1, 1], "spread": 0.2}, "are the same"),
        ({"value_range": [0, 1]}, "needs the spread"),
        ({**RECOVERY, "value_range": [1, 2], "spread": 0.2}, "begins at 0"),
        ({**RECOVERY, "baseline_accuracy": None}, "needs the baseline_accuracy"),
        ({"claim": "better"}, "lossless"),
        ({**REPEATS, "temperature": None}, "need a temperature"),
        ({"top_p": 0.9}, "need a temperature"),
        ({**REPEATS, "item_sd": None}, "need item_sd"),
        ({**REPEATS, **CLUSTER}, "grouped by item"),
    ],
)
def test_fields_that_contradict_or_miss_each_other_are_refused(
    write: Write, task: dict[str, object], problem: str
) -> None:
    with pytest.raises(SuiteError, match=problem):
        loaded(write(**task))


PUBLISHED = {"model": "Qwen/Qwen3-8B", "value": 0.87, "tolerance": 0.01, "source": "its card"}


def test_a_published_score_leaves_baselines_good(write: Write) -> None:
    suite = loaded(write(published={**PUBLISHED, "protocol": {"chat_template": True}}))
    assert suite.digest == loaded(write()).digest
    assert suite.tasks[0].published is not None
    assert suite.tasks[0].published.protocol.chat_template is True
    assert suite.tasks[0].published.protocol.num_fewshot is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"value": 87.3}, "0.873 for 87.3 %"),
        ({"value": None}, r"published\.value"),
        ({"tolerance": -1}, r"published\.tolerance"),
        ({"digest": "abc"}, r"published\.digest"),
        ({"protocol": {"template": True}}, r"protocol\.template"),
    ],
)
def test_a_published_score_that_cannot_be_is_refused(
    write: Write, change: dict[str, object], said: str
) -> None:
    with pytest.raises(SuiteError, match=said):
        loaded(write(published={**PUBLISHED, **change}))


def twice(write: Write, **second: object) -> Path:
    path = write()
    values = yaml.safe_load(path.read_text())
    values["tasks"].insert(1, {**values["tasks"][0], **second})
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.parametrize(
    ("second", "names"),
    [
        ({"metric": "acc"}, ("gsm8k(exact_match)", "gsm8k(acc)")),
        ({"filter": "strict-match"}, ("gsm8k(flexible-extract)", "gsm8k(strict-match)")),
        (
            {"metric": "acc", "filter": "none"},
            ("gsm8k(exact_match+flexible-extract)", "gsm8k(acc+none)"),
        ),
        ({"name": "mine", "task": "gsm8k"}, ("gsm8k", "mine")),
    ],
)
def test_metrics_of_one_task_are_named_by_what_differs(
    write: Write, second: dict[str, object], names: tuple[str, str]
) -> None:
    tasks = loaded(twice(write, **second)).tasks[:2]
    assert tuple(task.name for task in tasks) == names
    assert {task.asked for task in tasks} == {"gsm8k"}


@pytest.mark.parametrize("second", [{"items": 7}, {"num_fewshot": 1}])
def test_a_task_is_asked_in_one_way_for_all_its_metrics(
    write: Write, second: dict[str, object]
) -> None:
    with pytest.raises(SuiteError, match=f"give it one {next(iter(second))}"):
        loaded(twice(write, metric="acc", **second))


def test_a_tasks_metric_twice_is_refused(write: Write) -> None:
    with pytest.raises(SuiteError, match="lists the task 'gsm8k' twice"):
        loaded(twice(write, margin=0.01))


@pytest.mark.parametrize("name", ["*", "../*", "/etc/passwd", "a\0b", "[", "a" * 5000, ".."])
def test_a_name_is_no_pattern_and_no_path(write: Write, name: str) -> None:
    with pytest.raises(SuiteError, match=r"tasks\.0\.name"):
        load_suite(str(write(name=name)))


@pytest.mark.parametrize("change", [{"items": 2**70}, {"num_fewshot": 10**9}, {"items": 10**10}])
def test_counts_that_no_task_has_are_refused(write: Write, change: dict[str, object]) -> None:
    with pytest.raises(SuiteError, match=next(iter(change))):
        load_suite(str(write(**change)))


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
def test_a_text_that_means_infinity_is_no_number(write: Write, value: str) -> None:
    with pytest.raises(SuiteError, match="finite"):
        load_suite(str(write(value_range=[0, value], spread=0.1)))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_a_seed_is_one_that_generators_take(write: Write, seed: int) -> None:
    with pytest.raises(SuiteError, match="seed"):
        load_suite(str(write(suite={"seed": seed})))


def test_a_margin_given_twice_is_refused(write: Write) -> None:
    path = write()
    text = path.read_text()
    first = next(line for line in text.splitlines() if "margin:" in line)
    path.write_text(text.replace(first, f"{first}\n{first.replace('- ', '  ')}", 1))
    with pytest.raises(SuiteError, match=r"'margin' is given twice, in line \d+"):
        load_suite(str(path))


def test_a_recipe_names_its_own_suite_and_texts_from_where_it_lies(
    tmp_path: Path, write: Write
) -> None:
    values = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8"))
    values["suite"] = write().name
    values["calibration"]["data"] = "texts.jsonl"
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n')
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    recipe = load_recipe(Request(model="canary", recipe=path))
    assert recipe.calibration.data == str(tmp_path / "texts.jsonl")
    assert recipe.suite.name == SMOKE["name"]
