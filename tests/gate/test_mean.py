"""The score interval of a mean, against closed forms and against a plain maximization."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gate.mean import Range, exceeds, mean_bounds
from harness.gate.quantiles import t_of, z_of
from harness.gate.tango import tango_bounds

Z = 1.6448536269514722
counts = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n))
    )
)


def likeliest_variance(seen: dict[float, int], mean: float, ends: Range) -> float:
    """Maximize the likelihood over all distributions with this mean, by Newton-free bisection.

    The dual is solved over the tilt; what the seen values leave over goes to the end of the range.
    """
    items = sum(seen.values())

    def leftover(tilt: float) -> float:
        return sum(n * (v - mean) / (1 + tilt * (v - mean)) for v, n in seen.items()) / items

    low, high = 0.0, 1 / (mean - ends.lowest)
    for _ in range(200):
        middle = (low + high) / 2
        if any(1 + middle * (v - mean) <= 0 for v in seen) or leftover(middle) < 0:
            high = middle
        else:
            low = middle
    shares = {v: n / items / (1 + low * (v - mean)) for v, n in seen.items()}
    shares[ends.lowest] = shares.get(ends.lowest, 0.0) + 1 - sum(shares.values())
    assert sum(v * p for v, p in shares.items()) == pytest.approx(mean, abs=1e-9)
    return sum(p * (v - mean) ** 2 for v, p in shares.items())


@given(counts)
@settings(max_examples=100, deadline=None)
def test_lost_and_won_items_have_tangos_interval(table: tuple[int, int, int]) -> None:
    lost, won, items = table
    seen = +Counter({-1.0: lost, 1.0: won, 0.0: items - lost - won})
    bounds = mean_bounds(seen, Range(-1.0, 1.0), quantile=z_of(0.95))
    assert bounds == pytest.approx(tango_bounds(lost, won, items, confidence=0.95), abs=1e-9)


@pytest.mark.parametrize(("right", "items"), [(0, 10), (1, 1), (7, 10), (10, 10), (270, 300)])
def test_right_and_wrong_items_have_wilsons_interval(right: int, items: int) -> None:
    bounds = mean_bounds(+Counter({1.0: right, 0.0: items - right}), Range(0.0, 1.0), quantile=Z)
    centre = (right + Z * Z / 2) / (items + Z * Z)
    spread = Z / (items + Z * Z) * math.sqrt(right * (items - right) / items + Z * Z / 4)
    assert bounds == pytest.approx((centre - spread, centre + spread), abs=1e-9)


@given(
    st.dictionaries(st.sampled_from([-0.9, -0.4, -0.1, 0.0, 0.2, 0.5, 1.0]), st.integers(1, 30)),
    st.floats(0.01, 0.9),
)
@settings(max_examples=100, deadline=None)
def test_the_test_is_the_score_with_the_variance_of_the_likeliest_distribution(
    seen: dict[float, int], part: float
) -> None:
    items = sum(seen.values())
    if not items:
        return
    mean = sum(v * n for v, n in seen.items()) / items
    limit = -0.99 + part * (mean + 0.99)
    if mean - limit < 1e-3:
        return
    variance = likeliest_variance(seen, limit, Range(-0.99, 1.0))
    score = (mean - limit) * math.sqrt(items / variance)
    for factor, expected in ((0.999, True), (1.001, False)):
        assert exceeds(seen, limit, lowest=-0.99, quantile=score * factor) is expected


def test_equal_values_keep_an_honest_width() -> None:
    """Ten zeros: an unseen loss of 1 still counts, as z^2 / (n + z^2)."""
    bounds = mean_bounds({0.0: 10}, Range(-1.0, 1.0), quantile=Z)
    assert bounds == pytest.approx((-0.21294, 0.21294), abs=1e-5)


def test_nothing_is_known_with_an_infinite_quantile() -> None:
    assert mean_bounds({0.5: 10}, Range(-1.0, 1.0), quantile=math.inf) == pytest.approx((-1, 1))


@pytest.mark.parametrize(
    ("confidence", "degrees", "quantile"),
    [
        # Abramowitz and Stegun, table 26.10.
        (0.95, 1, 6.314),
        (0.95, 2, 2.920),
        (0.95, 3, 2.353),
        (0.975, 4, 2.776),
        (0.95, 13, 1.771),
        (0.99, 30, 2.457),
        (0.95, 120, 1.658),
    ],
)
def test_students_quantiles_are_those_of_the_tables(
    confidence: float, degrees: int, quantile: float
) -> None:
    assert round(t_of(confidence, degrees), 3) == quantile


def test_students_quantile_becomes_the_normal_one_and_needs_a_degree_of_freedom() -> None:
    assert t_of(0.95, 20_000) == pytest.approx(z_of(0.95), abs=2e-4)
    assert t_of(0.95, 0) == math.inf
