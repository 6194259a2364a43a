import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gate.quantiles import z_of
from harness.gate.tango import score, tango_bounds


def likeliest_lost_share(lost: int, won: int, items: int, difference: float) -> float:
    """Maximize the likelihood by ternary search; it is concave in the share."""

    def log_likelihood(share: float) -> float:
        both = items - lost - won
        cells = ((lost, share), (won, share + difference), (both, 1 - 2 * share - difference))
        return sum(n * math.log(max(p, 1e-300)) for n, p in cells if n)

    low, high = max(0.0, -difference), (1 - difference) / 2
    for _ in range(80):
        third = (high - low) / 3
        if log_likelihood(low + third) < log_likelihood(high - third):
            low += third
        else:
            high -= third
    return (low + high) / 2


def plain_score(lost: int, won: int, items: int, difference: float) -> float:
    share = likeliest_lost_share(lost, won, items, difference)
    variance = items * (2 * share + difference - difference**2)
    return (won - lost - items * difference) / math.sqrt(variance)


counts = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n))
    )
)


@given(counts, st.floats(-0.95, 0.95).filter(lambda d: abs(d) > 1e-3))
@settings(max_examples=150, deadline=None)
def test_the_closed_form_is_the_likelihoods_maximum(
    table: tuple[int, int, int], difference: float
) -> None:
    ours = score(*table, difference=difference)
    assert ours == pytest.approx(plain_score(*table, difference), rel=1e-4, abs=1e-4)


small_counts = st.integers(1, 30).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n))
    )
)


@given(small_counts, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
@settings(max_examples=30, deadline=None)
def test_the_bounds_are_where_a_grid_search_finds_them(
    table: tuple[int, int, int], confidence: float
) -> None:
    bounds = tango_bounds(*table, confidence=confidence)
    z = z_of(confidence)
    grid = [step / 100 for step in range(-99, 100) if step]
    kept = [d for d in grid if abs(plain_score(*table, d)) < z]
    assert bounds.low == pytest.approx(min(kept), abs=0.021)
    assert bounds.high == pytest.approx(max(kept), abs=0.021)


@given(counts)
@settings(max_examples=100, deadline=None)
def test_the_bounds_enclose_the_observed_difference(table: tuple[int, int, int]) -> None:
    lost, won, items = table
    bounds = tango_bounds(lost, won, items, confidence=0.95)
    assert -1 <= bounds.low <= (won - lost) / items <= bounds.high <= 1


@given(counts)
@settings(max_examples=50, deadline=None)
def test_the_statistic_falls_as_the_hypothesis_rises(table: tuple[int, int, int]) -> None:
    values = [score(*table, difference=step / 50) for step in range(-49, 50)]
    assert all(a >= b - 1e-9 for a, b in pairwise(values))


@given(counts)
@settings(max_examples=100, deadline=None)
def test_swapping_the_arms_mirrors_the_interval(table: tuple[int, int, int]) -> None:
    lost, won, items = table
    bounds = tango_bounds(lost, won, items, confidence=0.95)
    mirrored = tango_bounds(won, lost, items, confidence=0.95)
    assert (bounds.low, bounds.high) == (-mirrored.high, -mirrored.low)


@pytest.mark.parametrize(
    ("lost", "won", "items", "confidence", "low", "high"),
    [
        # R, PropCIs::scoreci.mp(25, 28, 618, 0.9), which estimates (second - first) / n.
        (25, 28, 618, 0.95, -0.0148, 0.0247),
        # R, PropCIs::scoreci.mp(60, 20, 1000, 0.95).
        (60, 20, 1000, 0.975, -0.0584, -0.0231),
        # Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014) 2850-2875: airway data.
        (7, 1, 21, 0.975, -0.517, -0.026),
    ],
)
def test_published_intervals_are_reproduced(  # noqa: PLR0913, PLR0917  one row of a table
    lost: int, won: int, items: int, confidence: float, low: float, high: float
) -> None:
    bounds = tango_bounds(lost, won, items, confidence=confidence)
    digits = len(str(low).split(".")[1])
    assert (round(bounds.low, digits), round(bounds.high, digits)) == (low, high)


@pytest.mark.parametrize("items", [1, 10, 300, 12_032])
def test_zero_flips_keep_an_honest_width(items: int) -> None:
    z2 = z_of(0.95) ** 2
    bounds = tango_bounds(0, 0, items, confidence=0.95)
    assert bounds.low == pytest.approx(-z2 / (items + z2), rel=1e-9)
    assert bounds.high == -bounds.low


@pytest.mark.parametrize("items", [1, 10, 300])
def test_a_clean_sweep_has_an_exact_interval(items: int) -> None:
    z2 = z_of(0.95) ** 2
    all_lost = tango_bounds(items, 0, items, confidence=0.95)
    assert all_lost.low == -1
    assert all_lost.high == pytest.approx((z2 - items) / (z2 + items), rel=1e-9)
    assert tango_bounds(0, items, items, confidence=0.95).high == 1


def test_impossible_counts_are_refused() -> None:
    for table in ((-1, 0, 10), (6, 5, 10), (0, 0, 0)):
        with pytest.raises(ValueError, match="are no counts"):
            tango_bounds(*table, confidence=0.95)


def test_what_cannot_have_happened_is_infinitely_surprising() -> None:
    assert score(0, 0, 10, difference=-1) == math.inf
    assert score(0, 0, 10, difference=1) == -math.inf
    assert score(0, 0, 10, difference=0) == 0
