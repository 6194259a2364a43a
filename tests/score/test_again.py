"""The second run of the same model (A/A): how much is asked, and in which batches."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Scorecard
from harness.score import read_arm, score_again

ALPHABET: Mapping[str, str] = {"a": "b", "b": "\n", "k": "k", "?": "<|end|>"}
MULTIPLE_CHOICE = {"metric": "acc", "items": 2, "chance": 0.5}

pytestmark = pytest.mark.usefixtures("tasks")
Make = Callable[..., Any]


def num_items(card: Scorecard) -> list[int]:
    return [task.num_items for task in card.tasks]


@pytest.fixture
def again(served: Make, spec: Make, suite: Make, tmp_path: Path) -> Callable[..., Scorecard]:
    """Ask a share of a generated and of a chosen task again, in a suite with these changes."""

    def ask(share: float, **changes: object) -> Scorecard:
        asked = suite(spec(), spec("tiny_choice", **MULTIPLE_CHOICE), **changes)
        return score_again(served(ALPHABET), asked, into=tmp_path / "again", share=share)

    return ask


@pytest.mark.parametrize(("share", "items"), [(1.0, [4, 2]), (0.5, [2, 1]), (0.01, [1, 1])])
def test_a_share_of_each_task_is_asked_and_never_nothing(
    again: Callable[..., Scorecard], tmp_path: Path, *, share: float, items: list[int]
) -> None:
    assert num_items(again(share)) == items
    samples = read_arm(tmp_path / "again").samples["tiny_next"]
    assert [s.doc_id for s in samples] == [*range(items[0])]


@pytest.mark.parametrize(("size", "other"), [(3, 1), (128, 64), (1, 2)])
def test_a_model_in_this_process_gets_other_batches(
    again: Callable[..., Scorecard], *, size: int, other: int
) -> None:
    card = again(1.0, batch_size=size)
    assert json.loads(card.generation["tiny_next"])["batch_size"] == other


def test_another_share_starts_anew(again: Callable[..., Scorecard]) -> None:
    """Answers of the smaller share would pass for those of the larger one."""
    assert num_items(again(0.5)) == [2, 1]
    assert num_items(again(1.0)) == [4, 2]


def test_the_same_share_continues_where_it_stopped(
    again: Callable[..., Scorecard], tmp_path: Path
) -> None:
    again(0.5)
    file = tmp_path / "again" / "samples" / "tiny_next.jsonl"
    written = file.stat().st_mtime_ns
    (tmp_path / "again" / "scorecard.json").unlink()
    again(0.5)
    assert file.stat().st_mtime_ns == written
