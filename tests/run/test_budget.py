"""A suite made as small as a time that was typed: repeats first, then items."""

import pytest

from harness.artifacts import Suite, TaskSpec
from harness.errors import UsageError
from harness.preflight.budget import fit_suite, seconds_of
from harness.recipe import load_suite
from tests.nouns import suite_of, task_spec

REPEATED = {
    "repeats": 16,
    "temperature": 0.6,
    "item_sd": 0.1,
    "repeat_sd": 0.5,
    "baseline_accuracy": 0.6,
    "margin": 0.1,
}


def one_second_an_answer(suite: Suite) -> float:
    return sum(task.items * task.repeats for task in suite.tasks)


def fitted(seconds: float, *tasks: TaskSpec) -> Suite | None:
    suite = suite_of(*tasks) if tasks else load_suite("canary")
    return fit_suite(suite, seconds, one_second_an_answer)


@pytest.mark.parametrize(("typed", "seconds"), [("90s", 90), ("60m", 3600), ("2h", 7200)])
def test_a_time_has_a_number_and_a_unit(typed: str, seconds: int) -> None:
    assert seconds_of(typed) == seconds


@pytest.mark.parametrize("typed", ["60", "m", "0m", "-5m", "1.5h", "60 m", "9999999h"])
def test_what_is_no_time_is_refused(typed: str) -> None:
    with pytest.raises(UsageError, match="such as 60m"):
        seconds_of(typed)


def test_a_suite_that_fits_stays_as_it_is() -> None:
    whole = load_suite("canary")
    assert fit_suite(whole, 5000, one_second_an_answer) is whole


def test_repeats_go_before_items() -> None:
    chosen = fitted(200 * 5, task_spec("canary_add", items=200, **REPEATED))
    assert chosen is not None
    assert [(t.items, t.repeats) for t in chosen.tasks] == [(200, 4)]
    chosen = fitted(200, task_spec("canary_add", items=200, **REPEATED))
    assert chosen is not None
    assert [(t.items, t.repeats) for t in chosen.tasks] == [(100, 2)]


@pytest.mark.parametrize("seconds", [4999, 3000, 2000])
def test_as_many_items_are_asked_as_fit(seconds: float) -> None:
    chosen = fitted(seconds)
    assert chosen is not None
    assert 0.8 * seconds < one_second_an_answer(chosen) <= seconds
    whole = load_suite("canary").tasks
    shares = [t.items / w.items for t, w in zip(chosen.tasks, whole, strict=True)]
    assert max(shares) - min(shares) < 0.01


def test_a_time_in_which_nothing_can_be_decided_is_none() -> None:
    assert fitted(500) is None
