"""What lm-eval never writes, and may lie in a file of its: a verdict, or one line of refusal."""

import math
from pathlib import Path
from typing import Any

import pytest

from harness.foreign import read_recorded
from tests.foreign_results.conftest import change_results, change_samples, judge, refusal

Arms = tuple[Path, Path]
MARGIN = ("--margin", 0.02)


def with_groups(arm: Path, groups: dict[str, Any]) -> None:
    change_results(arm, lambda values: values.update(group_subtasks=groups))


def test_a_target_of_many_digits_is_a_text(arms: Arms) -> None:
    change_samples(arms[1], "cmp20", lambda lines: lines[0].update(target="7" * 5000))
    change_samples(arms[0], "cmp20", lambda lines: lines[0].update(target="7" * 5000))
    assert len(judge(*arms, *MARGIN).json["tasks"]) == 2


@pytest.mark.parametrize("metric", [["x"], {"x": 1}, None])
def test_a_listed_metric_without_a_name_is_none(arms: Arms, metric: object) -> None:
    listed = [{"metric": metric, "aggregation": "mean", "higher_is_better": False}]
    for arm in arms:
        change_results(arm, lambda v: v["configs"]["mul20"].update(metric_list=listed))
    assert len(judge(*arms, *MARGIN).json["tasks"]) == 2


def test_an_infinite_argument_of_a_model_is_one(arms: Arms) -> None:
    change_results(arms[1], lambda v: v["config"]["model_args"].update(scale=math.inf))
    assert judge(*arms, *MARGIN).code == 4


def test_groups_of_groups_are_their_tasks(arms: Arms) -> None:
    with_groups(arms[0], {"top": ["low", "cmp20"], "low": ["mul20"], "other": ["low", "absent"]})
    assert read_recorded(arms[0]).groups == {"top": ("mul20", "cmp20"), "low": ("mul20",)}


def test_groups_that_name_others_twice_are_walked_once(arms: Arms) -> None:
    """2 ** 60 ways lead from the first to the last."""
    groups = {f"g{i}": [f"g{i + 1}", f"g{i + 1}"] for i in range(60)} | {"g60": ["mul20"]}
    with_groups(arms[0], groups)
    assert read_recorded(arms[0]).groups["g0"] == ("mul20",)


def test_groups_however_deep_are_walked(arms: Arms) -> None:
    groups = {f"g{i}": [f"g{i + 1}"] for i in range(5000)} | {"g5000": ["mul20"]}
    with_groups(arms[0], groups)
    assert read_recorded(arms[0]).groups["g0"] == ("mul20",)


def test_groups_in_each_other_are_refused(arms: Arms) -> None:
    with_groups(arms[1], {"a": ["b", "mul20"], "b": ["a"]})
    assert "has groups of tasks in each other: " in refusal(*arms, *MARGIN)
