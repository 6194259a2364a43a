import math
import random

import pytest

from harness import shipped
from harness.artifacts import Tier
from harness.errors import ReasonCode, SuiteError
from harness.gate import (
    check_margins,
    joint_probability_of_go,
    plan_power,
    probability_of_go,
    smallest_margin,
)
from harness.gate.tango import tango_bounds
from harness.recipe import load_suite
from tests.nouns import suite_of, task_spec


def by_enumeration(items: int, flip_rate: float, margin: float, difference: float) -> float:
    """Sum the trinomial probability of every table whose interval passes."""
    p_lost, p_won = (flip_rate - difference) / 2, (flip_rate + difference) / 2
    p_same = 1 - p_lost - p_won
    total = 0.0
    for lost in range(items + 1):
        for won in range(items - lost + 1):
            if tango_bounds(lost, won, items, confidence=0.95).low > -margin:
                ways = math.comb(items, lost) * math.comb(items - lost, won)
                same = items - lost - won
                total += ways * p_lost**lost * p_won**won * p_same**same
    return total


@pytest.mark.parametrize("difference", [0.0, -0.1, 0.05])
@pytest.mark.parametrize("margin", [0.1, 0.2])
def test_the_sum_over_flips_equals_the_sum_over_all_tables(
    margin: float, difference: float
) -> None:
    plain = by_enumeration(40, 0.2, margin, difference)
    ours = probability_of_go(40, 0.2, margin, 0.95, difference=difference)
    assert ours == pytest.approx(plain, abs=1e-9)


def test_simulated_candidates_pass_as_often_as_planned() -> None:
    rng = random.Random(20261123)  # noqa: S311  a simulation
    items, flip_rate, margin, runs = 300, 0.08, 0.05, 4000
    passed = 0
    for _ in range(runs):
        flips = sum(rng.random() < flip_rate for _ in range(items))
        lost = sum(rng.random() < 0.5 for _ in range(flips))
        passed += tango_bounds(lost, flips - lost, items, confidence=0.95).low > -margin
    planned = probability_of_go(items, flip_rate, margin, 0.95)
    assert passed / runs == pytest.approx(planned, abs=4 * math.sqrt(0.25 / runs))


def test_a_loss_of_exactly_the_margin_passes_about_one_time_in_twenty() -> None:
    """A score interval is exact on average, not for each rate; the worst case here is 6.1 %."""
    rates = [
        probability_of_go(items, margin * factor, margin, 0.95, difference=-margin)
        for items in (100, 300, 1319)
        for margin in (0.02, 0.03, 0.05, 0.1)
        for factor in (1.0, 1.2, 1.5, 2.0, 4.0)
    ]
    assert max(rates) < 0.062
    assert sum(rates) / len(rates) < 0.05


def test_simulated_bad_candidates_rarely_pass() -> None:
    rng = random.Random(7)  # noqa: S311  a simulation
    items, lost_rate, won_rate, runs = 300, 0.08, 0.03, 4000
    passed = 0
    for _ in range(runs):
        draws = [rng.random() for _ in range(items)]
        lost = sum(d < lost_rate for d in draws)
        won = sum(lost_rate <= d < lost_rate + won_rate for d in draws)
        passed += tango_bounds(lost, won, items, confidence=0.95).low > -0.05
    assert passed / runs < 0.05 + 4 * math.sqrt(0.05 * 0.95 / runs)


def test_the_smallest_margin_is_just_enough() -> None:
    margin = smallest_margin(task_spec(items=300, flip_rate=0.05), 0.95)
    assert probability_of_go(300, 0.05, margin, 0.95) >= 0.8
    assert probability_of_go(300, 0.05, margin - 0.0001, 0.95) < 0.8
    assert (
        smallest_margin(task_spec(items=1200, flip_rate=0.05), 0.95)
        < margin
        < smallest_margin(task_spec(items=300, flip_rate=0.1), 0.95)
    )


def test_a_candidate_that_never_flips_passes_surely_or_never() -> None:
    assert probability_of_go(300, 0.0, 0.01, 0.95) == 1
    assert probability_of_go(200, 0.0, 0.01, 0.95) == 0


def test_a_difference_larger_than_the_flip_rate_is_impossible() -> None:
    with pytest.raises(ValueError, match="flip rate"):
        probability_of_go(100, 0.02, 0.05, 0.95, difference=-0.03)


def test_a_margin_that_zero_flips_cannot_meet_is_refused() -> None:
    tight = suite_of(task_spec(items=200, margin=0.01))
    with pytest.raises(SuiteError, match=r"at least 0\.0134, or at least 268 items") as caught:
        check_margins(tight)
    assert caught.value.reason is ReasonCode.MARGIN_UNREACHABLE
    check_margins(suite_of(task_spec(items=268, margin=0.01)))
    check_margins(suite_of(task_spec(items=200, margin=0.0134)))
    with pytest.raises(SuiteError):
        check_margins(suite_of(task_spec(items=267, margin=0.01)))


def test_a_margin_of_zero_is_refused_without_a_number_of_items() -> None:
    with pytest.raises(SuiteError, match=r"at least 0\.009\.$"):
        check_margins(suite_of(task_spec(items=300, margin=0.0)))


def test_an_advisory_margin_is_free() -> None:
    check_margins(suite_of(task_spec(), task_spec("x", tier=Tier.ADVISORY, margin=0.0001)))


def test_tasks_multiply() -> None:
    one, two = task_spec(), task_spec("sort", items=500)
    advisory = task_spec("hard", tier=Tier.ADVISORY, items=10)
    three = suite_of(one, two, advisory)
    planned = plan_power(three)
    assert [p.task.name for p in planned] == ["add", "sort", "hard"]
    joint = planned[0].probability_of_go * planned[1].probability_of_go
    assert joint_probability_of_go(three) == pytest.approx(joint)


SUITES = sorted(path.stem for path in shipped.suites().glob("*.yaml"))


@pytest.mark.parametrize("name", SUITES)
def test_a_candidate_without_loss_passes_each_shipped_suite_four_times_in_five(name: str) -> None:
    suite = load_suite(name)
    assert any(task.tier is Tier.CRITICAL for task in suite.tasks)
    check_margins(suite)
    assert joint_probability_of_go(suite) >= 0.8
