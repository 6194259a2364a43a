"""What is found wrong in a suite before any model is loaded, and without a network."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import shipped
from harness.errors import SuiteError
from harness.recipe import load_suite
from harness.score import check_suite
from harness.score.sources import Catalog

Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        message = "the network was used"
        raise AssertionError(message)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.usefixtures("tasks")
def test_local_tasks_pass(spec: Make, suite: Make) -> None:
    check_suite(suite(spec(), spec("tiny_choice", metric="acc", items=2)))


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "exact"}, "unknown metric of task 'tiny_next': 'exact'.*'exact_match'"),
        ({"filter": "strict"}, "unknown filter of task 'tiny_next': 'strict'.*'none'"),
        ({"items": 5}, "has 4 items, the suite asks for 5"),
    ],
)
def test_what_a_task_lacks_is_named(
    spec: Make, suite: Make, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=message):
        check_suite(suite(spec(**changes)))


@pytest.mark.usefixtures("tasks", "lm_eval_index")
def test_an_unknown_task_is_refused_with_the_nearest_names(spec: Make, suite: Make) -> None:
    with pytest.raises(SuiteError, match=r"unknown task: 'gsm9k'.*'gsm8k'"):
        check_suite(suite(spec("gsm9k")))


@pytest.mark.usefixtures("tasks")
def test_a_budget_without_room_for_a_prompt_is_refused(spec: Make, suite: Make) -> None:
    with pytest.raises(SuiteError, match="no room for a prompt"):
        check_suite(suite(spec(), max_model_len=6))


def test_a_task_that_samples_is_refused(tasks: Path, spec: Make, suite: Make) -> None:
    path = tasks / "tiny_next.yaml"
    path.write_text(path.read_text().replace("do_sample: false", "do_sample: true"))
    with pytest.raises(SuiteError, match="sampled answers"):
        check_suite(suite(spec()))


def test_a_task_made_for_no_examples_gets_none(tasks: Path, spec: Make, suite: Make) -> None:
    with (tasks / "tiny_next.yaml").open("a") as file:
        file.write("num_fewshot: 0\n")
    with pytest.raises(SuiteError, match="made for 0 worked examples"):
        check_suite(suite(spec(num_fewshot=2)))


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("bleu", "metric 'bleu' is made of all answers at once, by 'bleu'.* Use 'exact_match'"),
        ("ter", "metric 'ter' is made of all answers at once, by 'ter'"),
        ("own", "'own' is made of all answers at once, by a function of the task's own"),
        ("f1", "metric 'f1' is made of all answers at once, by 'f1'"),
        ("bypass", "metric 'bypass' is made of all answers at once"),
    ],
)
def test_what_is_no_metric_of_items_is_refused_with_what_is(
    tasks: Path, spec: Make, suite: Make, metric: str, said: str
) -> None:
    more = "".join(f"  - metric: {name}\n" for name in ("bleu", "ter", "f1", "bypass"))
    with (tasks / "tiny_next.yaml").open("a") as file:
        file.write(f"{more}  - metric: own\n    aggregation: !function scoring.over_all\n")
    with pytest.raises(SuiteError, match=said):
        check_suite(suite(spec(metric=metric)))


@pytest.mark.parametrize(
    ("kind", "instead"),
    [
        ("generate_until", "'exact_match', or a number for each item"),
        ("multiple_choice", "'acc', 'acc_norm' or 'brier_score'"),
    ],
)
def test_where_a_task_has_no_metric_of_items_one_is_named(
    tasks: Path, spec: Make, suite: Make, kind: str, instead: str
) -> None:
    path = tasks / "tiny_next.yaml"
    path.write_text(path.read_text().replace("generate_until", kind))
    path.write_text(path.read_text().partition("metric_list")[0] + "metric_list: [{metric: f1}]\n")
    with pytest.raises(SuiteError, match=f"Use {instead}"):
        check_suite(suite(spec(metric="f1")))


def test_a_perplexity_has_a_relative_margin_and_nothing_else_has(
    tasks: Path, spec: Make, suite: Make
) -> None:
    rising = {"margin": None, "relative_margin": 0.01, "spread": 0.1}
    with pytest.raises(SuiteError, match=r"metric 'exact_match' is none\. Give it a margin"):
        check_suite(suite(spec(**rising)))
    path = tasks / "tiny_next.yaml"
    path.write_text(
        path.read_text()
        .replace("generate_until", "loglikelihood_rolling")
        .replace("exact_match", "word_perplexity")
        .replace("aggregation: mean", "aggregation: weighted_perplexity")
    )
    check_suite(suite(spec(metric="word_perplexity", **rising)))
    with pytest.raises(SuiteError, match=r"'word_perplexity' is a perplexity.* relative_margin"):
        check_suite(suite(spec(metric="word_perplexity")))
    with pytest.raises(SuiteError, match="made for 0 worked examples"):
        check_suite(suite(spec(metric="word_perplexity", num_fewshot=1, **rising)))


@pytest.mark.parametrize(
    ("higher", "value_range", "said"),
    [
        ("false", None, "lower values of metric 'exact_match' are better"),
        ("false", (0.0, 4.0), "but 0 counts as the worst and 4 as the best"),
        ("true", (1.0, 0.0), "higher values of metric 'exact_match' are better"),
    ],
)
def test_a_range_with_the_better_value_at_the_wrong_end_is_refused(  # noqa: PLR0913, PLR0917  makers
    tasks: Path, spec: Make, suite: Make, higher: str, value_range: object, said: str
) -> None:
    path = tasks / "tiny_next.yaml"
    path.write_text(path.read_text().replace("better: true", f"better: {higher}"))
    with pytest.raises(SuiteError, match=said):
        check_suite(suite(spec(value_range=value_range, spread=0.5)))


def test_a_task_that_runs_the_models_code_is_refused(tasks: Path, spec: Make, suite: Make) -> None:
    with (tasks / "tiny_next.yaml").open("a") as file:
        file.write("unsafe_code: true\n")
    with pytest.raises(SuiteError, match="runs code that the model wrote"):
        check_suite(suite(spec()))


def test_a_malformed_item_is_named(tasks: Path, spec: Make, suite: Make) -> None:
    with (tasks / "tiny_next.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(SuiteError, match=r"tiny_next\.jsonl:5: "):
        check_suite(suite(spec()))


@pytest.mark.parametrize("path", sorted(shipped.suites().glob("*.yaml")), ids=lambda p: p.stem)
def test_a_shipped_suite_can_be_scored(path: Path) -> None:
    check_suite(load_suite(str(path)))


@pytest.mark.usefixtures("lm_eval_index")
def test_a_group_of_lm_eval_is_its_members(spec: Make, suite: Make) -> None:
    group = suite(
        spec("mmlu_pro", filter="custom-extract", items=14, num_fewshot=5), max_model_len=4096
    )
    check_suite(group)
    assert len(Catalog().leaves("mmlu_pro")) == 14
    with pytest.raises(SuiteError, match="multiple of 14, not 15"):
        check_suite(suite(spec("mmlu_pro", filter="custom-extract", items=15)))
