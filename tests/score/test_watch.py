"""A task that is asked in parts, while somebody looks at the answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import EarlyEnd, Sample, Scorecard, TaskSpec, WhyEnded, read_samples
from harness.score import finished_samples, score

Make = Callable[..., Any]
SUCCESSORS = {"a": "b", "b": "\n", "k": "k", "?": "<|end|>"}
MULTIPLE_CHOICE = {"metric": "acc", "items": 2, "chance": 0.5}

pytestmark = pytest.mark.usefixtures("tasks")


class Watching:
    """Looks at `tiny_next` after one and three items, and ends when told to."""

    def __init__(self, ends_at: int | None = None) -> None:
        self.ends_at = ends_at
        self.seen: list[tuple[str, int, tuple[int, ...]]] = []

    def order(self, tasks: Sequence[Sequence[TaskSpec]]) -> list[Sequence[TaskSpec]]:
        return sorted(tasks, key=lambda specs: specs[0].name, reverse=True)

    def looks(self, specs: Sequence[TaskSpec]) -> tuple[int, ...]:
        return (1, 3) if specs[0].name == "tiny_next" else ()

    def see(
        self, spec: TaskSpec, samples: Sequence[Sample], looks: Sequence[int]
    ) -> EarlyEnd | None:
        self.seen.append((spec.name, len(samples), tuple(looks)))
        if self.ends_at is None or len(samples) < self.ends_at:
            return None
        return EarlyEnd(
            task=spec.name,
            why=WhyEnded.INFERIOR,
            items=tuple(sorted(s.doc_id for s in samples)),
            share=0.5,
            seconds=1.0,
        )


class LookingBack(Watching):
    """Ends, when `tiny_next` is first answered, for `tiny_choice`, which was answered before."""

    def order(self, tasks: Sequence[Sequence[TaskSpec]]) -> list[Sequence[TaskSpec]]:
        return sorted(tasks, key=lambda specs: specs[0].name)

    def see(
        self, spec: TaskSpec, samples: Sequence[Sample], looks: Sequence[int]
    ) -> EarlyEnd | None:
        super().see(spec, samples, looks)
        if spec.name != "tiny_next":
            return None
        why = WhyEnded.INFERIOR
        return EarlyEnd(task="tiny_choice", why=why, items=(0, 1), share=0.5, seconds=1.0)


@pytest.fixture
def ask(served: Make, spec: Make, suite: Make, tmp_path: Path) -> Callable[..., Scorecard]:
    def make(watch: Watching | None) -> Scorecard:
        asked = suite(spec("tiny_choice", **MULTIPLE_CHOICE), spec())
        card: Scorecard = score(
            served(SUCCESSORS), asked, arm="candidate", into=tmp_path / "out", watch=watch
        )
        return card

    return make


def test_watched_to_the_end_it_is_scored_as_if_nobody_had_looked(
    ask: Make, tmp_path: Path, served: Make, spec: Make, suite: Make
) -> None:
    watch = Watching()
    card = ask(watch)
    assert watch.seen == [
        ("tiny_next", 1, ()),
        ("tiny_next", 3, (1,)),
        ("tiny_next", 4, (1, 3)),
        ("tiny_choice", 2, ()),
    ]
    asked = suite(spec("tiny_choice", **MULTIPLE_CHOICE), spec())
    alone = score(served(SUCCESSORS), asked, arm="candidate", into=tmp_path / "alone")
    assert card.looks == {"tiny_next": (1, 3)}
    assert (card.ended, alone.looks) == (None, {})
    watched, unwatched = (
        read_samples(tmp_path / f / "samples" / "tiny_next.jsonl") for f in ("out", "alone")
    )
    assert [(s.doc_id, s.answer, s.value) for s in watched] == [
        (s.doc_id, s.answer, s.value) for s in unwatched
    ]


def test_an_early_end_leaves_no_finished_task_behind(ask: Make, tmp_path: Path) -> None:
    card = ask(Watching(ends_at=3))
    assert card.ended is not None
    assert card.ended.not_asked == ("tiny_choice",)
    assert [task.num_items for task in card.tasks] == [3]
    assert [s.doc_id for s in read_samples(tmp_path / "out" / card.tasks[0].samples)] == list(
        card.ended.items
    )
    assert list((tmp_path / "out" / "tasks").iterdir()) == []


def test_asked_again_without_a_watch_all_of_it_is_answered(ask: Make) -> None:
    ask(Watching(ends_at=3))
    whole = ask(None)
    assert whole.ended is None
    assert [task.num_items for task in whole.tasks] == [2, 4]


def test_what_an_earlier_run_has_answered_can_end_the_next(ask: Make) -> None:
    ask(None)
    watch = Watching(ends_at=4)
    assert ask(watch).ended is not None
    assert watch.seen[-1] == ("tiny_next", 4, ())


def test_a_task_that_was_being_asked_when_another_ended_the_run_is_not_scored(ask: Make) -> None:
    watch = LookingBack()
    card = ask(watch)
    assert watch.seen == [("tiny_choice", 2, ()), ("tiny_next", 1, ())]
    assert [task.task for task in card.tasks] == ["tiny_choice"]
    assert card.generation.keys() == {"tiny_choice"}
    assert card.ended is not None
    assert card.ended.not_asked == ("tiny_next",)


def test_a_second_metric_of_the_task_that_ended_the_run_is_not_scored_by_a_part(
    served: Make, spec: Make, suite: Make, tmp_path: Path
) -> None:
    asked = suite(spec(), spec("again", task="tiny_next"))
    card = score(
        served(SUCCESSORS),
        asked,
        arm="candidate",
        into=tmp_path / "out",
        watch=Watching(ends_at=3),
    )
    assert [task.task for task in card.tasks] == ["tiny_next"]
    assert card.ended is not None
    assert card.ended.not_asked == ("again",)


def test_a_folder_of_scores_that_lacks_a_task_has_no_answers_to_it(
    ask: Make, tmp_path: Path
) -> None:
    ask(Watching(ends_at=3))
    assert len(finished_samples(tmp_path / "out", "tiny_next")) == 3
    assert finished_samples(tmp_path / "out", "tiny_choice") == ()
