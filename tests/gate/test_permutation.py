"""McNemar's and the sign-flip test, against plain enumeration and numbers worked out by hand."""

import random
from itertools import product
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gate.mcnemar import p_worse
from harness.gate.signflip import Cluster, sign_flip_bounds, sign_flip_p


def by_enumeration(groups: list[Cluster], mean: float = 0.0) -> float:
    """Flip every sign in every way around `mean`."""
    rest = [group.total - mean * group.items for group in groups]
    ways = [sum(s * r for s, r in zip(signs, rest, strict=True)) for signs in signs_of(rest)]
    return sum(way <= sum(rest) + 1e-12 for way in ways) / len(ways)


def signs_of(values: list[float]) -> list[tuple[int, ...]]:
    return list(product((1, -1), repeat=len(values)))


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 0.5),
        (0, 1, 1.0),
        (5, 0, 1 / 32),
        (4, 1, 6 / 32),
        (10, 2, (66 + 12 + 1) / 4096),
        (2, 2, 11 / 16),
    ],
)
def test_mcnemars_p_value_is_that_of_fair_coins(lost: int, won: int, p: float) -> None:
    assert p_worse(lost, won) == pytest.approx(p, rel=1e-12)


def test_many_flips_are_no_problem() -> None:
    assert p_worse(2000, 2000) == pytest.approx(0.5 + comb(4000, 2000) / 2**4001, rel=1e-9)


differences = st.lists(st.sampled_from([-1.0, -0.6, -0.1, 0.0, 0.1, 0.35, 1.0]), max_size=9)


@given(differences)
@settings(max_examples=60, deadline=None)
def test_the_sign_flip_test_is_the_enumeration_of_all_signs(values: list[float]) -> None:
    groups = [Cluster(value, 1) for value in values]
    assert sign_flip_p(groups) == pytest.approx(by_enumeration(groups))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_on_lost_and_won_items_it_is_mcnemars_test(lost: int, won: int, same: int) -> None:
    values = [-1.0] * lost + [1.0] * won + [0.0] * same
    assert sign_flip_p([Cluster(v, 1) for v in values]) == pytest.approx(p_worse(lost, won))


def test_a_cluster_keeps_one_sign() -> None:
    """Four groups that lost 3, 2, 1 and nothing: of 8 signs only one is as bad."""
    groups = [Cluster(-3.0, 5), Cluster(-2.0, 5), Cluster(-1.0, 5), Cluster(0.0, 5)]
    assert sign_flip_p(groups) == 1 / 8


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 4)), min_size=5, max_size=8))
@settings(max_examples=25, deadline=None)
def test_the_interval_holds_the_means_that_the_test_does_not_reject(
    drawn: list[tuple[float, int]],
) -> None:
    groups = [Cluster(value * items, items) for value, items in drawn]
    low, _ = sign_flip_bounds(groups, confidence=0.9)
    mirrored = [Cluster(-g.total, g.items) for g in groups]
    for mean in (low - 1e-6, low + 1e-6):
        p_better = by_enumeration(mirrored, -mean)
        assert (p_better > 0.1) is (mean > low)


def test_five_items_reach_95_percent_and_four_do_not() -> None:
    """Of 32 sign patterns one is 3.1 %; of 16 it is 6.3 %."""
    four = [Cluster(v, 1) for v in (0.1, 0.2, 0.3, 0.4)]
    assert sign_flip_bounds(four, confidence=0.95) == (-1.0, 1.0)
    assert sign_flip_bounds([*four, Cluster(0.5, 1)], confidence=0.95) == (0.1, 0.5)


def test_random_flips_are_seeded_and_close_to_the_exact_count() -> None:
    rng = random.Random(3)  # noqa: S311  test data
    groups = [Cluster(round(rng.uniform(-0.5, 0.4), 1), 1) for _ in range(40)]
    exact = sign_flip_p(groups)  # tenths have few sums, so they are counted
    jittered = [Cluster(g.total + rng.uniform(-1e-7, 1e-7), 1) for g in groups]
    drawn = sign_flip_p(jittered)  # no two sums agree, so they are drawn
    assert drawn == sign_flip_p(jittered)
    assert drawn == pytest.approx(exact, abs=0.02)
    assert drawn * 10_000 == pytest.approx(round(drawn * 10_000))


def test_equal_differences_have_no_width_of_their_own() -> None:
    assert sign_flip_bounds([Cluster(0.0, 1)] * 50, confidence=0.95) == (0.0, 0.0)
