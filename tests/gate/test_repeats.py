"""Items that are asked several times: the item counts, and what came too late helps nobody."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from harness.artifacts import Arm, Claim, Decision, Sample, TaskSpec, TaskVerdict
from harness.errors import IncomparableError, ReasonCode
from harness.gate import chance_of_go, judge, smallest_margin, variances_of
from harness.gate.mean import Range, mean_bounds
from harness.gate.quantiles import z_of
from harness.gate.repeated import majority, pass_at
from tests.gate.arms import make_arm
from tests.nouns import sample, suite_of, task_spec

PLANNED = {"baseline_accuracy": 0.5, "item_sd": 0.1, "repeat_sd": 0.55}


def repeated(**changes: object) -> TaskSpec:
    return task_spec("aime", **{"repeats": 4, "temperature": 0.6, **PLANNED, **changes})


def asked(values: list[list[float]], **finishes: str) -> tuple[Sample, ...]:
    """Answers to each item; a keyword such as `i2r1` says how one of them ended."""
    return tuple(
        replace(
            sample("aime", item, value),
            repeat=repeat,
            voted="right" if value else f"wrong {repeat}",
            finish=finishes.get(f"i{item}r{repeat}", "stop"),
        )
        for item, answers in enumerate(values)
        for repeat, value in enumerate(answers)
    )


def arm_of(name: str, samples: tuple[Sample, ...], repeats: int = 4) -> Arm:
    made = make_arm(name, {"aime": samples})
    score = made.scorecard.tasks[0]
    late = sum(s.finish == "timeout" for s in samples)
    score = replace(score, num_items=score.num_items // repeats, repeats=repeats, num_timeouts=late)
    return replace(made, scorecard=replace(made.scorecard, tasks=(score,)))


def judged(
    baseline: tuple[Sample, ...], candidate: tuple[Sample, ...], **changes: object
) -> TaskVerdict:
    max_truncated = changes.pop("max_truncated", 0.02)
    spec = repeated(items=len(baseline) // 4, **changes)
    arms = arm_of("baseline", baseline), arm_of("candidate", candidate)
    suite = suite_of(spec, max_truncated=max_truncated)
    return judge(suite, *arms, verified=True).tasks[0]


HALF = [[1.0, 0.0, 1.0, 0.0]]
RIGHT = [[1.0] * 4]
WRONG = [[0.0] * 4]


def test_an_item_is_one_number_whatever_the_repeats() -> None:
    baseline, candidate = 20 * RIGHT + 20 * HALF, 10 * HALF + 30 * RIGHT
    verdict = judged(asked(baseline), asked(candidate))
    means = {-0.5: 10, 0.0: 10, 0.5: 20}
    bounds = mean_bounds(means, Range(-1.0, 1.0), quantile=z_of(0.95))
    assert (verdict.low, verdict.high) == pytest.approx((bounds.low, bounds.high))
    assert (verdict.num_items, verdict.num_lost, verdict.num_won) == (40, 10, 20)
    assert "40 items, each the mean of 4 answers (clustered by item)" in verdict.method


def test_the_difference_is_that_of_the_two_scores() -> None:
    verdict = judged(asked(20 * RIGHT + 20 * HALF), asked(10 * HALF + 30 * RIGHT))
    assert (verdict.baseline, verdict.candidate) == (0.75, 0.875)
    assert verdict.difference == pytest.approx(0.125)


def test_the_same_answers_in_another_order_are_no_flip() -> None:
    """Between 0 and 1, sums of floats depend on their order."""
    values = [0.1, 0.2, 0.3, 0.4]
    spec = {"value_range": (0.0, 1.0), "margin": 0.2}
    verdict = judged(asked(40 * [values]), asked(40 * [values[::-1]]), **spec)
    assert (verdict.num_lost, verdict.num_won) == (0, 0)


def test_repeats_of_few_items_show_no_more_than_the_items() -> None:
    alike = asked(30 * RIGHT)
    verdict = judged(alike, alike)
    z = z_of(0.95)
    assert verdict.low == pytest.approx(-z * z / (30 + z * z))


def test_a_candidate_that_is_late_loses_the_answer() -> None:
    baseline = asked(40 * RIGHT)
    late = {f"i{item}r0": "timeout" for item in range(8)}
    candidate = asked(8 * [[0.0, 1.0, 1.0, 1.0]] + 32 * RIGHT, **late)
    verdict = judged(baseline, candidate, margin=0.2)
    assert verdict.candidate == pytest.approx(1 - 8 / 160)
    assert verdict.reason is ReasonCode.TRUNCATED_ANSWERS


def test_being_late_alone_is_no_proof_of_a_loss() -> None:
    late = {f"i{item}r{repeat}": "timeout" for item in range(40) for repeat in range(4)}
    verdict = judged(asked(40 * RIGHT), asked(40 * WRONG, **late))
    assert verdict.decision is Decision.INCONCLUSIVE


def test_a_baseline_that_is_late_leaves_its_item_unknown() -> None:
    baseline = asked(40 * RIGHT, i0r3="timeout")
    verdict = judged(baseline, asked(40 * RIGHT), margin=0.2)
    assert verdict.num_items == 39
    assert verdict.reason is ReasonCode.REQUEST_ERRORS


def test_an_arm_with_fewer_repeats_never_passes() -> None:
    baseline = arm_of("baseline", asked(40 * RIGHT))
    twice = arm_of("candidate", asked(40 * [[1.0, 1.0]]), repeats=2)
    with pytest.raises(IncomparableError, match="differs"):
        judge(suite_of(repeated(items=40)), baseline, twice, verified=True)


def test_a_claim_of_no_loss_is_tested_by_item() -> None:
    baseline, candidate = asked(40 * RIGHT), asked(10 * HALF + 30 * RIGHT)
    verdict = judged(baseline, candidate, margin=0.9, claim=Claim.LOSSLESS)
    assert verdict.p_value == pytest.approx(2**-10)
    assert verdict.reason is ReasonCode.CLAIM_REFUTED


def test_answers_that_are_cut_oftener_are_seen_by_item() -> None:
    cut = {f"i{item}r{repeat}": "length" for item in range(6) for repeat in range(4)}
    verdict = judged(asked(40 * RIGHT), asked(40 * RIGHT, **cut), max_truncated=0.5)
    assert verdict.reason is ReasonCode.TRUNCATION_RISE


def test_a_flip_shows_answers_that_differ() -> None:
    spec = repeated(items=40)
    arms = arm_of("baseline", asked(40 * RIGHT)), arm_of("candidate", asked(HALF + 39 * RIGHT))
    verdict = judge(suite_of(spec), *arms, verified=True)
    assert [(f.baseline, f.candidate) for f in verdict.flips] == [("right", "wrong")]


def test_the_commonest_answer_counts_and_equally_common_ones_share() -> None:
    told = [("4", 1.0), ("5", 0.0), ("4", 1.0), ("7", 0.0)]
    votes = [replace(sample("aime", 0, v), voted=text) for text, v in told]
    assert majority(votes) == 1.0
    assert majority(votes[:2]) == 0.5


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer() -> None:
    answers = [sample("aime", 0, v) for v in (1.0, 0.0, 0.0, 1.0, 0.0)]
    for k in (1, 2, 3, 5):
        chosen = list(combinations(answers, k))
        share = sum(any(a.value for a in one) for one in chosen) / len(chosen)
        assert pass_at(k, answers) == pytest.approx(share)


def test_majority_and_pass_at_k_are_said_and_decide_nothing() -> None:
    verdict = judged(asked(40 * HALF), asked(40 * HALF))
    said = {e.name: (e.baseline, e.candidate) for e in verdict.estimates}
    assert said == {
        "majority of 4": (1.0, 1.0),
        "pass@2": (pytest.approx(5 / 6), pytest.approx(5 / 6)),
        "pass@4": (1.0, 1.0),
    }


def test_one_answer_an_item_has_no_estimates() -> None:
    arms = (make_arm(name, {"add": (sample("add", 0, 1.0),)}) for name in ("baseline", "candidate"))
    assert judge(suite_of(), *arms, verified=True).tasks[0].estimates == ()


def drawn(accuracy: list[float], repeats: int, seed: int) -> tuple[Sample, ...]:
    draws = np.random.default_rng(seed)
    return tuple(
        replace(sample("aime", item, float(draws.random() < p)), repeat=repeat)
        for item, p in enumerate(accuracy)
        for repeat in range(repeats)
    )


def test_variances_are_those_that_answers_were_drawn_with() -> None:
    first = np.random.default_rng(1).uniform(0, 1, 3000)
    second = np.clip(first + 0.15 * np.where(np.arange(3000) % 2, 1, -1), 0, 1)
    within = first * (1 - first) + second * (1 - second)
    found = variances_of(drawn(list(first), 8, 2), drawn(list(second), 8, 3))
    assert found.baseline_accuracy == pytest.approx(0.5, abs=0.02)
    assert found.item_sd == pytest.approx(float((second - first).std()), abs=0.01)
    assert found.repeat_sd == pytest.approx(float(within.mean() ** 0.5), abs=0.01)
    assert not found.item_sd_is_assumed


def test_a_baseline_alone_says_that_the_items_spread_is_assumed() -> None:
    found = variances_of(drawn([0.5] * 2000, 4, 5))
    assert found.repeat_sd == pytest.approx(0.5**0.5, abs=0.01)
    assert found.item_sd_is_assumed
    assert 0 < found.item_sd < found.repeat_sd


def test_nothing_is_known_of_answers_that_were_given_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        variances_of(drawn([0.5] * 9, 1, 5))


def test_repeats_help_until_the_items_differ_more_than_they_do() -> None:
    margins = [smallest_margin(repeated(items=200, repeats=k), 0.95) for k in (2, 8, 64, 1024)]
    assert margins == sorted(margins, reverse=True)
    assert margins[2] < 1.2 * margins[3]
    assert chance_of_go(repeated(items=200, margin=margins[0]), 0.95) > 0.8


def test_a_plan_is_the_same_each_time() -> None:
    first, second = (chance_of_go(repeated(items=120, margin=0.06), 0.95) for _ in range(2))
    assert first == second
