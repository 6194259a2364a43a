"""Answers are paired where the question is the same, and nowhere else without saying so."""

from dataclasses import replace

from harness.comparing import compare_runs
from tests.comparing.conftest import NUM_ITEMS, Made, Make


def test_lost_items_are_shown_with_both_answers(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made(wrong=frozenset({3}))))
    (flip,) = found.flips
    assert (flip.doc_id, flip.a, flip.b, flip.lost) == (3, "right", "wrong", True)


def test_the_difference_is_of_the_pairs(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made(wrong=frozenset({3, 4}))))
    (task,) = found.tasks
    assert (task.num_lost, task.num_won) == (2, 0)
    assert task.difference == -2 / NUM_ITEMS
    assert task.low is not None
    assert task.high is not None
    assert task.low < -2 / NUM_ITEMS < task.high


def test_flips_are_bounded_and_their_number_is_not(make: Make) -> None:
    wrong = frozenset(range(30))
    found = compare_runs(make("a", Made()), make("b", Made(wrong=wrong)), max_flips=7)
    assert (len(found.flips), found.num_flips) == (7, 30)


def test_other_prompts_are_not_paired(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made(asks="other words")))
    (task,) = found.tasks
    assert task.difference is None
    assert task.note == "not comparable: no question is the same in both"


def test_a_longer_run_is_compared_on_the_items_of_both(make: Make) -> None:
    short = Made(num_items=10)
    (spec,) = short.recipe.suite.tasks
    suite = replace(short.recipe.suite, tasks=(replace(spec, items=10),), digest="e" * 64)
    short.recipe = replace(short.recipe, suite=suite)
    found = compare_runs(make("a", Made()), make("b", short))
    (task,) = found.tasks
    assert task.num_items == 10
    assert f"of {NUM_ITEMS} in A and 10 in B" in task.note


def test_answers_that_are_gone_are_said_and_scores_still_stand(make: Make) -> None:
    b = make("b", Made())
    (b / "samples" / "add.jsonl").unlink()
    found = compare_runs(make("a", Made()), b)
    (task,) = found.tasks
    assert (task.a, task.b, task.difference) == (1.0, 1.0, None)
    assert task.note == "not paired: the answers of B are gone"


def test_answers_that_were_edited_are_not_believed(make: Make) -> None:
    b = make("b", Made())
    file = b / "samples" / "add.jsonl"
    file.write_text(file.read_text().replace("right", "wrong", 1))
    found = compare_runs(make("a", Made()), b)
    assert any("is not the file that was scored" in note for note in found.b.notes)
    assert found.tasks[0].num_items == 0
