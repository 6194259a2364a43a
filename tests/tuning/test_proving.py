"""Which recipes are put to the gate, and which one is returned; no gate is run here."""

import pytest

from harness.artifacts import Attempt, Decision, Frontier, Point
from harness.tuning.proving import smallest_with_go

CODES = {Decision.GO: 0, Decision.NO_GO: 4, Decision.INCONCLUSIVE: 5, None: 3}


def point(bits: float, *, name: str = "frontier", measured: float | None = None) -> Point:
    return Point(
        name=name,
        choice={"a": name},
        num_bits=int(bits * 100),
        bits=bits,
        kld=0.0,
        measured=measured,
    )


def tried(one: Point, decision: Decision | None) -> Attempt:
    return Attempt(
        bits=one.bits,
        measured=None,
        recipe="",
        run="",
        decision=decision,
        exit_code=CODES[decision],
        summary="",
    )


@pytest.mark.parametrize("first_with_go", range(9))
def test_the_smallest_recipe_with_go_is_found(first_with_go: int) -> None:
    points = [point(bits) for bits in range(4, 13)]
    asked = []

    def attempt(one: Point) -> Attempt:
        asked.append(one.bits)
        is_go = one.bits >= points[first_with_go].bits
        return tried(one, Decision.GO if is_go else Decision.NO_GO)

    chosen, best = smallest_with_go(points, attempt)
    assert (chosen, best.decision) == (points[first_with_go], Decision.GO)
    assert len(asked) <= 4


def test_without_go_the_one_that_came_nearest_is_returned() -> None:
    points = [point(bits) for bits in range(4, 11)]

    def attempt(one: Point) -> Attempt:
        return tried(one, Decision.INCONCLUSIVE if one.bits == 9 else Decision.NO_GO)

    chosen, best = smallest_with_go(points, attempt)
    assert (chosen.bits, best.decision) == (9, Decision.INCONCLUSIVE)


def test_a_run_that_failed_ends_the_search() -> None:
    points = [point(bits) for bits in range(4, 11)]
    asked = []

    def attempt(one: Point) -> Attempt:
        asked.append(one)
        return tried(one, None)

    chosen, best = smallest_with_go(points, attempt)
    assert (len(asked), best.exit_code) == (1, 3)
    assert chosen is asked[0]


def test_a_recipe_worse_than_a_uniform_one_of_no_more_bits_is_never_made() -> None:
    tuned = (point(5, measured=0.3), point(6, measured=0.2), point(8.5, measured=0.02))
    uniform = (point(4.5, name="all nvfp4", measured=0.25), point(8, name="all fp8", measured=0.01))
    frontier = Frontier(points=tuned, uniform=uniform, num_texts=2, num_tokens=8)
    assert [one.bits for one in frontier.made()] == [4.5, 6, 8]
