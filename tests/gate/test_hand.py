"""`judge` on cases small enough to be worked out by hand; z is 1.644854, z^2 is 2.705543."""

from dataclasses import replace

import pytest

from harness.artifacts import Arm, Claim, Decision, Recovery, TaskVerdict
from harness.errors import ReasonCode
from harness.gate import judge
from harness.gate.tango import score
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of, task_spec

Z2 = 2.705543454


def verdict_on(
    baseline: list[float],
    candidate: list[float],
    groups: list[str] | None = None,
    **changes: object,
) -> TaskVerdict:
    """Judge one task from its values and, where it is grouped, its clusters."""
    spec = task_spec(items=len(baseline), **changes)
    groups = groups or [""] * len(baseline)

    def scored(name: str, values: list[float]) -> Arm:
        made = answers("add", values)
        grouped = (replace(s, cluster=g) for s, g in zip(made, groups, strict=True))
        return make_arm(name, {"add": tuple(grouped)})

    arms = scored("baseline", baseline), scored("candidate", candidate)
    return judge(suite_of(spec), *arms, verified=True).tasks[0]


def numbers(task: TaskVerdict) -> tuple[float, float, float]:
    assert task.difference is not None
    assert task.low is not None
    assert task.high is not None
    return task.difference, task.low, task.high


def recovery(task: TaskVerdict) -> Recovery:
    assert task.recovery is not None
    return task.recovery


def test_zero_flips() -> None:
    """The bounds are -+ z^2 / (n + z^2)."""
    task = verdict_on([1.0] * 300, [1.0] * 300)
    assert numbers(task) == pytest.approx((0.0, -Z2 / (300 + Z2), Z2 / (300 + Z2)), abs=1e-9)
    assert (task.decision, task.reason) == (Decision.GO, ReasonCode.NON_INFERIOR)


def test_identical_arms_that_are_often_wrong() -> None:
    values = [1.0, 1.0, 0.0] * 100
    task = verdict_on(values, values)
    assert numbers(task) == pytest.approx((0.0, -Z2 / (300 + Z2), Z2 / (300 + Z2)), abs=1e-9)
    assert (task.num_lost, task.num_won, task.decision) == (0, 0, Decision.GO)


def test_all_flips_one_way() -> None:
    """Everything lost: the upper bound is (z^2 - n) / (z^2 + n)."""
    task = verdict_on([1.0] * 10, [0.0] * 10)
    assert numbers(task) == pytest.approx((-1.0, -1.0, (Z2 - 10) / (Z2 + 10)), abs=1e-9)
    assert (task.decision, task.reason) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)


def test_all_flips_both_ways() -> None:
    """No item stays, so the variance at d is n (1 - d^2), and n^2 d^2 = z^2 n (1 - d^2)."""
    task = verdict_on([1.0] * 5 + [0.0] * 5, [0.0] * 5 + [1.0] * 5)
    bound = (Z2 / (10 + Z2)) ** 0.5
    assert numbers(task) == pytest.approx((0.0, -bound, bound), abs=1e-9)
    assert task.decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize(("after", "high"), [(1.0, Z2 / (1 + Z2)), (0.0, (Z2 - 1) / (Z2 + 1))])
def test_one_item_proves_nothing(after: float, high: float) -> None:
    task = verdict_on([1.0], [after])
    assert numbers(task)[2] == pytest.approx(high, abs=1e-9)
    assert task.decision is Decision.INCONCLUSIVE


def test_no_item_proves_nothing() -> None:
    task = verdict_on([], [])
    assert (task.difference, task.low, task.high) == (None, None, None)
    assert task.decision is Decision.INCONCLUSIVE


def test_values_that_all_fell_by_one_half() -> None:
    """Equal differences of -1/2: signs show no width, an unseen -1 or 1 does.

    Below, the missing part to -1 is 1/2: 0.5 z^2 / (n + z^2). Above, that to 1 is 3/2.
    """
    task = verdict_on([0.75] * 8, [0.25] * 8, value_range=(0.0, 1.0), margin=0.1)
    low, high = -0.5 - 0.5 * Z2 / (8 + Z2), -0.5 + 1.5 * Z2 / (8 + Z2)
    assert numbers(task) == pytest.approx((-0.5, low, high), abs=1e-9)
    assert (round(low, 4), round(high, 4)) == (-0.6264, -0.1209)
    assert (task.num_lost, task.decision) == (8, Decision.NO_GO)


@pytest.mark.parametrize(("items", "low"), [(4, -1.0), (5, -Z2 / (5 + Z2))])
def test_four_values_have_too_few_signs_to_prove_anything(items: int, low: float) -> None:
    """Of 16 sign patterns one is 6.3 %, of 32 it is 3.1 %; then the unseen loss of 1 decides."""
    task = verdict_on([0.5] * items, [0.5] * items, value_range=(0.0, 1.0))
    assert numbers(task) == pytest.approx((0.0, low, -low), abs=1e-9)
    assert "sign-flip" in task.method


def test_identical_values_pass() -> None:
    task = verdict_on([0.5] * 100, [0.5] * 100, value_range=(0.0, 1.0))
    assert numbers(task) == pytest.approx((0.0, -Z2 / (100 + Z2), Z2 / (100 + Z2)), abs=1e-9)
    assert task.decision is Decision.GO


@pytest.mark.parametrize(("right", "decision"), [(268, "GO"), (267, "INCONCLUSIVE")])
def test_a_recovery_at_zero_flips(right: int, decision: str) -> None:
    """The ratio's lower bound is right / (right + z^2): 268 right items keep 99.0 %, 267 do not."""
    values = [1.0] * right + [0.0] * (300 - right)
    task = verdict_on(values, values, margin=None, recovery=0.99)
    kept = recovery(task)
    assert (kept.required, kept.observed) == (0.99, 1.0)
    assert kept.low == pytest.approx(right / (right + Z2), abs=1e-6)
    assert task.decision == decision
    assert task.margin == pytest.approx(0.01 * right / 300)
    assert (task.low is not None and task.low > -task.margin) is (decision == "GO")


def test_a_recovery_is_not_confused_by_a_weak_baseline() -> None:
    """Half of the items lost: the same 25 points are 50 % here and would be 75 % at full marks."""
    task = verdict_on(
        [1.0] * 150 + [0.0] * 150, [1.0] * 75 + [0.0] * 225, margin=None, recovery=0.7
    )
    kept = recovery(task)
    assert kept.observed == 0.5
    assert 0.4 < kept.low < 0.5 < kept.high < 0.6
    assert (task.decision, task.reason) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)
    assert "keeps 50.00% of the baseline's accuracy" in task.message
    assert task.margin == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("lost", "won", "p", "decision"),
    [
        (0, 0, 1.0, "GO"),
        (4, 0, 1 / 16, "GO"),
        (5, 0, 1 / 32, "NO-GO"),
        (7, 1, 9 / 256, "NO-GO"),
        (6, 1, 8 / 128, "GO"),
    ],
)
def test_a_claim_of_no_loss(lost: int, won: int, p: float, decision: str) -> None:
    """All of these are within the margin of 5 points; the coins decide."""
    same = 300 - lost - won
    before = [1.0] * lost + [0.0] * won + [1.0] * same
    after = [0.0] * lost + [1.0] * won + [1.0] * same
    assert verdict_on(before, after).decision is Decision.GO
    task = verdict_on(before, after, claim=Claim.LOSSLESS)
    assert task.p_value == pytest.approx(p)
    assert task.decision == decision
    if decision == "NO-GO":
        assert task.reason is ReasonCode.CLAIM_REFUTED
        assert f"p = {p:.2g}" in task.message


def test_absence_of_significance_is_no_pass() -> None:
    """Thirty items without a flip have p = 1 and are still too few for the margin."""
    task = verdict_on([1.0] * 30, [1.0] * 30, claim=Claim.LOSSLESS)
    assert (task.p_value, task.decision) == (1.0, Decision.INCONCLUSIVE)
    assert task.reason is ReasonCode.NOT_ENOUGH_EVIDENCE


def test_eight_losses_in_one_of_four_clusters() -> None:
    """The design effect is 64 / 7.8127: group totals -8, 0, 0, 0 around -2 give 48 x 4/3, items
    8 - 64/300 times 300/299. Student's quantile for 3 is 2.353363, so that of the score is 6.7357.
    """
    before, after = [1.0] * 300, [0.0] * 8 + [1.0] * 292
    groups = [str(i // 75) for i in range(300)]
    task = verdict_on(before, after, groups, cluster="subject", clusters=4)
    _, low, high = numbers(task)
    assert score(8, 0, 300, difference=low) == pytest.approx(6.7357, abs=1e-3)
    assert score(8, 0, 300, difference=high) == pytest.approx(-6.7357, abs=1e-3)
    assert (task.num_clusters, task.decision) == (4, Decision.INCONCLUSIVE)


def test_losses_spread_evenly_over_many_clusters_cost_hardly_any_width() -> None:
    before, after = [1.0] * 300, [0.0] * 6 + [1.0] * 294
    plain = verdict_on(before, after)
    each = verdict_on(before, after, [str(i) for i in range(300)], cluster="x", clusters=300)
    assert numbers(each) == pytest.approx(numbers(plain), abs=3e-4)
    assert numbers(each)[1] < numbers(plain)[1]


def test_one_cluster_shows_nothing() -> None:
    task = verdict_on([1.0] * 300, [0.0] * 300, ["one"] * 300, cluster="x", clusters=2)
    assert numbers(task)[1:] == pytest.approx((-1.0, 1.0))
    assert task.decision is Decision.INCONCLUSIVE


def test_a_stated_design_effect_widens_what_too_few_flips_cannot_show() -> None:
    """At zero flips the bound is c^2 / (n + c^2), here with c^2 = 4 x 1.7291^2 for 20 clusters."""
    groups = [str(i % 20) for i in range(300)]
    task = verdict_on([1.0] * 300, [1.0] * 300, groups, cluster="x", clusters=20, design_effect=4.0)
    c2 = 4 * 1.729133**2
    assert numbers(task)[1] == pytest.approx(-c2 / (300 + c2), abs=1e-6)
