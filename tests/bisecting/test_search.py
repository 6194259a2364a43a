"""The first bad point is found in as few runs as halving takes, and never guessed."""

import math
from collections.abc import Callable

import pytest

from harness.bisecting.search import Answer, Ending, Outcome, Place, search

Say = Callable[[Place], Outcome]


def find(lengths: list[int], say: Say, *, repeats: int = 2) -> tuple[Answer, list[Place]]:
    asked: list[Place] = []

    def observe(place: Place, number: int) -> Outcome:
        del number
        asked.append(place)
        return say(place)

    return search(lengths, observe, repeats=repeats), asked


def bad_from(first: int) -> Say:
    return lambda place: Outcome.BAD if place[0] >= first else Outcome.GOOD


@pytest.mark.parametrize("first", range(1, 33))
def test_the_first_bad_of_33_is_found_in_five_runs_after_the_ends(first: int) -> None:
    answer, asked = find([33], bad_from(first))
    assert (answer.ending, answer.suspects) == (Ending.FOUND, (first,))
    assert (answer.last_good, answer.first_bad) == ((first - 1,), (first,))
    assert len(asked) - 4 <= math.ceil(math.log2(32))


def test_two_points_need_no_run_but_the_ends() -> None:
    answer, asked = find([2], bad_from(1))
    assert (answer.suspects, len(asked)) == ((1,), 4)


def test_ends_that_are_both_good_end_it_after_the_ends() -> None:
    answer, asked = find([9], lambda _: Outcome.GOOD)
    assert (answer.ending, len(asked)) == (Ending.ALIKE, 4)


def test_ends_the_wrong_way_round_are_no_range() -> None:
    answer, _ = find([9], lambda place: Outcome.BAD if place == (0,) else Outcome.GOOD)
    assert answer.ending is Ending.ALIKE


def test_an_end_that_changes_its_mind_is_flaky() -> None:
    turns = iter([Outcome.GOOD, Outcome.BAD, Outcome.BAD, Outcome.BAD])
    answer, _ = find([9], lambda _: next(turns))
    assert answer.ending is Ending.FLAKY
    assert "the good end gave good, bad" in answer.said


def test_an_end_that_says_nothing_ends_it() -> None:
    answer, _ = find([9], lambda place: Outcome.SKIP if place == (8,) else Outcome.GOOD)
    assert answer.ending is Ending.NOT_RUN


@pytest.mark.parametrize("skipped", range(1, 9))
@pytest.mark.parametrize("first", range(1, 10))
def test_a_point_that_cannot_be_run_is_gone_around(first: int, skipped: int) -> None:
    answer, _ = find([10], lambda p: Outcome.SKIP if p == (skipped,) else bad_from(first)(p))
    assert first in answer.suspects
    assert set(answer.suspects) <= {first, skipped, skipped + 1}
    assert (answer.ending is Ending.FOUND) is (len(answer.suspects) == 1)


def test_where_all_between_is_skipped_all_are_named() -> None:
    answer, _ = find([5], lambda p: {0: Outcome.GOOD, 4: Outcome.BAD}.get(p[0], Outcome.SKIP))
    assert (answer.ending, answer.suspects) == (Ending.AMONG, (1, 2, 3, 4))


def test_the_axis_that_turns_it_bad_is_searched_with_those_before_at_their_bad_end() -> None:
    answer, _ = find([3, 4, 5], lambda p: Outcome.BAD if p[1] >= 2 else Outcome.GOOD)
    assert (answer.axis, answer.suspects) == (1, (2,))
    assert answer.last_good == (2, 1, 0)


def test_what_is_bad_only_together_is_found_in_the_axis_that_completes_it() -> None:
    answer, _ = find([2, 8], lambda p: Outcome.BAD if p[0] == 1 and p[1] >= 3 else Outcome.GOOD)
    assert (answer.axis, answer.suspects) == (1, (3,))


def test_an_axis_whose_end_says_nothing_leaves_it_open() -> None:
    answer, _ = find([2, 2], lambda p: Outcome.SKIP if p == (1, 0) else bad_from(1)(p))
    assert (answer.ending, answer.axis) == (Ending.AMONG, None)
