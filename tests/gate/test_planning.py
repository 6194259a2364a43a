"""What --plan says of each form, against plain sums over everything that can happen."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.artifacts import Claim, Decision, Tier
from harness.errors import ReasonCode, SuiteError
from harness.gate import (
    chance_of_go,
    check_margins,
    joint_probability_of_go,
    judge,
    plan_power,
    probability_of_go,
    smallest_margin,
)
from harness.gate.mcnemar import p_worse
from harness.gate.mean import Range, mean_bounds
from harness.gate.quantiles import z_of
from harness.gate.tango import tango_bounds
from tests.gate.arms import arms_of
from tests.nouns import suite_of, task_spec

Z = z_of(0.95)


def tables(items: int, *chances: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yield every table of the first kinds of items with its probability; the rest is one more."""
    if not chances:
        yield (), 1.0
        return
    first, *rest = chances
    left = 1 - first
    for count in range(items + 1):
        chance = math.comb(items, count) * first**count * left ** (items - count)
        for table, p in tables(items - count, *(c / left for c in rest)):
            yield (count, *table), chance * p


def test_a_claim_of_no_loss_is_summed_exactly() -> None:
    claimed = task_spec(items=40, flip_rate=0.2, margin=0.2, claim=Claim.LOSSLESS)
    plain = sum(
        p
        for (lost, won), p in tables(40, 0.1, 0.1)
        if tango_bounds(lost, won, 40, confidence=0.95).low > -0.2 and p_worse(lost, won) > 0.05
    )
    assert chance_of_go(claimed, 0.95) == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize("difference", [0.0, -0.1])
def test_a_recovery_is_summed_exactly(difference: float) -> None:
    kept, accuracy, flips = 0.85, 0.9, 0.2
    spec = task_spec(
        items=24, flip_rate=flips, margin=None, recovery=kept, baseline_accuracy=accuracy
    )
    lost, won = (flips - difference) / 2, (flips + difference) / 2
    total = 0.0
    for (n_lost, n_won, n_right), p in tables(24, lost, won, accuracy - lost):
        seen: Counter[float] = Counter()
        for value, count in ((-kept, n_lost), (1.0, n_won), (1 - kept, n_right)):
            seen[value] += count
        seen[0.0] += 24 - n_lost - n_won - n_right
        bounds = mean_bounds(+seen, Range(-kept, 1.0), quantile=Z)
        total += p * (bounds.low > 0)
    assert chance_of_go(spec, 0.95, difference=difference) == pytest.approx(total, abs=1e-9)


def test_values_are_summed_exactly_for_one_size_of_difference() -> None:
    spec = task_spec(items=40, flip_rate=0.5, margin=0.1, value_range=(0.0, 1.0), spread=0.3)
    total = 0.0
    for (lost, won), p in tables(40, 0.25, 0.25):
        seen = +Counter({-0.3: lost, 0.3: won, 0.0: 40 - lost - won})
        total += p * (mean_bounds(seen, Range(-1.0, 1.0), quantile=Z).low > -0.1)
    assert chance_of_go(spec, 0.95) == pytest.approx(total, abs=1e-9)


def test_one_item_a_cluster_is_planned_like_independent_items() -> None:
    each = task_spec(items=300, flip_rate=0.08, margin=0.04, cluster="x", clusters=300)
    planned = chance_of_go(each, 0.95)
    assert planned == pytest.approx(probability_of_go(300, 0.08, 0.04, 0.95), abs=0.06)
    assert planned == chance_of_go(each, 0.95)


def test_grouping_costs_power_and_a_larger_margin_buys_it_back() -> None:
    plain = task_spec(items=700, flip_rate=0.08, margin=0.03)
    grouped = task_spec(
        items=700, flip_rate=0.08, margin=0.03, cluster="x", clusters=14, design_effect=3.0
    )
    first, second = plan_power(suite_of(plain, replace(grouped, name="grouped")))
    assert second.probability_of_go < first.probability_of_go
    assert second.smallest_margin > first.smallest_margin
    enough = replace(grouped, margin=second.smallest_margin)
    assert chance_of_go(enough, 0.95) == pytest.approx(0.8, abs=0.01)


def test_a_recovery_is_planned_as_a_margin_of_the_accuracy_that_is_expected() -> None:
    spec = task_spec(items=1319, flip_rate=0.05, margin=None, recovery=0.97, baseline_accuracy=0.8)
    (power,) = plan_power(suite_of(spec))
    assert power.margin == pytest.approx(0.03 * 0.8)
    assert power.smallest_margin == pytest.approx(
        smallest_margin(task_spec(items=1319, flip_rate=0.05), 0.95), abs=0.0005
    )
    at_the_smallest = replace(spec, recovery=1 - power.smallest_margin / 0.8)
    assert chance_of_go(at_the_smallest, 0.95) >= 0.8


def test_a_claim_costs_its_false_alarms() -> None:
    plain = task_spec(items=1319, flip_rate=0.05, margin=0.05)
    claimed = replace(plain, claim=Claim.LOSSLESS)
    cost = chance_of_go(plain, 0.95) - chance_of_go(claimed, 0.95)
    assert 0.02 < cost < 0.05


def test_a_pooled_margin_is_part_of_the_joint_chance() -> None:
    tasks = task_spec(), task_spec("hard", tier=Tier.ADVISORY, flip_rate=0.2)
    alone = joint_probability_of_go(suite_of(*tasks))
    pooled = probability_of_go(600, 0.125, 0.03, 0.95)
    assert joint_probability_of_go(suite_of(*tasks, pooled_margin=0.03)) == pytest.approx(
        alone * pooled
    )


def test_the_plan_of_an_impossible_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="flip rate"):
        chance_of_go(task_spec(flip_rate=0.02), 0.95, difference=-0.03)


FORMS: dict[str, dict[str, object]] = {
    "margin": {"margin": 0.01},
    "recovery": {"margin": None, "recovery": 0.99, "baseline_accuracy": 1.0},
    "lossless": {"margin": 0.01, "claim": Claim.LOSSLESS},
    "values": {"margin": 0.01, "value_range": (0.0, 1.0), "spread": 0.2},
}


@pytest.mark.parametrize("form", FORMS)
def test_what_nobody_can_pass_is_refused_for_each_form(form: str) -> None:
    """268 items are the fewest for one point; the gate itself agrees on both sides of that."""
    spec = task_spec(items=268, **FORMS[form])
    check_margins(suite_of(spec))
    assert judge(suite_of(spec), *arms_of(lost=0, won=0, items=268), verified=True).decision == "GO"
    few = replace(spec, items=267)
    with pytest.raises(SuiteError, match=r"or at least 268 items\.$") as caught:
        check_margins(suite_of(few))
    assert caught.value.reason is ReasonCode.MARGIN_UNREACHABLE
    verdict = judge(suite_of(few), *arms_of(lost=0, won=0, items=267), verified=True)
    assert verdict.decision is Decision.INCONCLUSIVE


def test_a_recovery_counts_the_items_that_the_baseline_can_lose() -> None:
    """At 90 % accuracy 268 right items are 298 items."""
    spec = task_spec(items=298, margin=None, recovery=0.99, baseline_accuracy=0.9)
    check_margins(suite_of(spec))
    with pytest.raises(SuiteError, match=r"recovery of at most 0\.98\d*, or at least 298 items"):
        check_margins(suite_of(replace(spec, items=290)))


def test_few_clusters_raise_what_can_be_reached() -> None:
    """With 3 clusters Student's quantile is 2.92, and 2.92^2 / (n + 2.92^2) < 1 % needs 845."""
    spec = task_spec(items=845, margin=0.01, cluster="x", clusters=3)
    check_margins(suite_of(spec))
    with pytest.raises(SuiteError, match=r"840 items in 3 clusters, .* or at least 845 items"):
        check_margins(suite_of(replace(spec, items=840)))


def test_a_pooled_margin_that_nobody_can_meet_is_refused() -> None:
    both = suite_of(task_spec(), task_spec("sort"), pooled_margin=0.004)
    with pytest.raises(SuiteError, match=r"pooled_margin of 0\.004 .* 600 items") as caught:
        check_margins(both)
    assert caught.value.reason is ReasonCode.MARGIN_UNREACHABLE
    check_margins(replace(both, pooled_margin=0.005))


def test_groups_raise_what_the_pool_can_reach() -> None:
    """With 4 groups Student's quantile is 2.35, and 2.35^2 / (600 + 2.35^2) is above 0.9 %."""
    grouped = [task_spec(name, cluster="x", clusters=2) for name in ("add", "sort")]
    both = suite_of(*(replace(one, tier=Tier.ADVISORY) for one in grouped), pooled_margin=0.009)
    with pytest.raises(SuiteError, match=r"pooled_margin of 0\.009 .* 600 items"):
        check_margins(both)
    check_margins(replace(both, pooled_margin=0.01))


def test_groups_lower_the_chance_that_the_pool_passes() -> None:
    tasks = [task_spec(name, tier=Tier.ADVISORY) for name in ("add", "sort")]
    alone = suite_of(*tasks, pooled_margin=0.02)
    grouped = replace(alone, tasks=tuple(replace(t, cluster="x", clusters=2) for t in tasks))
    assert joint_probability_of_go(grouped) < joint_probability_of_go(alone) - 0.1


def test_a_plan_counts_groups_where_it_asks_whether_guessing_would_pass() -> None:
    """90 % of 300 items are shown to lie above 81 + 5 points, not so of items in 40 groups."""
    alone = task_spec(chance=0.81, baseline_accuracy=0.9)
    check_margins(suite_of(alone))
    grouped = replace(alone, cluster="x", clusters=40, design_effect=1.5)
    with pytest.raises(SuiteError, match="a candidate which guesses would fail"):
        check_margins(suite_of(grouped))
