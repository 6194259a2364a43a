"""A perplexity is decided on the log ratio over all words, document by document."""

import math
import random
from dataclasses import replace

import pytest

from harness.artifacts import Arm, Claim, Decision, Sample, Scale, Suite, TaskSpec, Tier, Verdict
from harness.errors import ReasonCode, SuiteError
from harness.gate import chance_of_go, check_margins, judge, plan_power, smallest_margin
from harness.gate.ratio import MIN_DOCUMENTS, Weighted, ratio_bounds
from tests.gate.arms import answers, make_arm
from tests.nouns import sample, suite_of, task_spec

WORDS = 100.0
NAMES = ("baseline", "candidate")


def rising(name: str = "wiki", /, **changes: object) -> TaskSpec:
    form: dict[str, object] = {
        "items": 60,
        "metric": "word_perplexity",
        "margin": None,
        "relative_margin": 0.01,
        "spread": 0.02,
        "flip_rate": 0.0,
    }
    return task_spec(name, **form | changes)


def documents(values: list[float], weights: list[float]) -> tuple[Sample, ...]:
    return tuple(
        replace(sample("wiki", i, v, finish="scored"), weight=w, answer="log-likelihood")
        for i, (v, w) in enumerate(zip(values, weights, strict=True))
    )


def arm(name: str, values: list[float], weights: list[float], **changes: object) -> Arm:
    samples = documents(values, weights)
    mean = sum(values) / sum(weights)
    made = make_arm(name, {"wiki": samples})
    score = replace(
        made.scorecard.tasks[0],
        value=math.exp(-mean),
        scale=Scale.PERPLEXITY,
        **changes,  # type: ignore[arg-type]  # the fields vary by test
    )
    return replace(made, scorecard=replace(made.scorecard, tasks=(score,)))


def arms(ratio: float, *, items: int = 60, noise: float = 0.02, seed: int = 1) -> tuple[Arm, Arm]:
    """Return two arms whose perplexities have `ratio`, with documents of unequal lengths."""
    draws = random.Random(seed)  # noqa: S311  documents, no secrets
    weights = [WORDS * math.exp(draws.gauss(0, 0.5)) for _ in range(items)]
    before = [-2.0 * w + draws.gauss(0, math.sqrt(w)) for w in weights]
    residuals = [draws.gauss(0, noise * w) for w in weights]
    centre = sum(residuals) / sum(weights)
    after = [
        b - math.log(ratio) * w + r - centre * w
        for b, w, r in zip(before, weights, residuals, strict=True)
    ]
    return arm("baseline", before, weights), arm("candidate", after, weights)


def judged(both: tuple[Arm, Arm], *tasks: TaskSpec, **changes: object) -> Verdict:
    items = len(both[0].samples["wiki"])
    return judge(suite_of(*(tasks or (rising(items=items),)), **changes), *both, verified=True)


def test_an_equal_perplexity_is_go() -> None:
    verdict = judged(arms(1.0))
    assert (verdict.decision, verdict.reason_codes) == (Decision.GO, (ReasonCode.NON_INFERIOR,))
    task = verdict.tasks[0]
    assert task.ratio is not None
    assert task.ratio.observed == pytest.approx(1.0)
    assert task.ratio.low < task.ratio.observed < task.ratio.high < task.ratio.allowed
    assert task.ratio.allowed == pytest.approx(1.01)
    assert task.ratio.spread == pytest.approx(0.02, rel=0.4)
    assert "(spread 0.0" in task.message
    assert "from a perplexity of 7.4954 to 7.4954 on 60 documents" in verdict.summary
    assert "%" not in verdict.summary


def test_a_perplexity_beyond_its_margin_is_no_go() -> None:
    verdict = judged(arms(1.03))
    assert (verdict.decision, verdict.reason_codes[0]) == (
        Decision.NO_GO,
        ReasonCode.TASK_INFERIOR,
    )
    assert "1.0300 times the baseline's" in verdict.summary


def test_a_better_perplexity_is_go() -> None:
    assert judged(arms(0.9)).decision is Decision.GO


@pytest.mark.parametrize("ratio", [1.0, 1.008, 1.012])
def test_too_few_documents_for_their_noise_are_inconclusive(ratio: float) -> None:
    verdict = judged(arms(ratio, items=12, noise=0.05))
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)


def test_a_few_documents_show_nothing_however_alike_they_are() -> None:
    few = MIN_DOCUMENTS - 1
    verdict = judged(arms(1.0, items=few, noise=0.0))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert f"{few} documents show nothing" in verdict.tasks[0].message
    assert (verdict.tasks[0].low, verdict.tasks[0].ratio) == (None, None)


def test_the_score_is_that_of_all_words_and_not_the_mean_of_documents() -> None:
    weights = [1000.0] + [1.0] * 19
    before = [-1000.0] + [-9.0] * 19
    after = [-1000.0 * 1.02] + [-9.0] * 19
    task = judged((arm("baseline", before, weights), arm("candidate", after, weights))).tasks[0]
    assert task.baseline == pytest.approx(math.exp(1171 / 1019))
    assert task.difference == pytest.approx(-20 / 1019)
    assert task.decision is not Decision.GO


def test_one_document_that_holds_most_words_shows_as_little_as_one() -> None:
    alike = [Weighted(0.0, 100.0)] * 40
    rough = [Weighted(1.0, 100.0), Weighted(-1.0, 100.0)] * 20
    dominated = [Weighted(200.0, 100_000.0), *rough]
    assert ratio_bounds(alike, confidence=0.95).low == 0
    assert ratio_bounds(rough, confidence=0.95).low > -0.01
    assert ratio_bounds(dominated, confidence=0.95).low < -0.01


def test_skewness_only_widens_a_bound() -> None:
    draws = random.Random(3)  # noqa: S311  documents, no secrets
    losses = [Weighted(1 - draws.expovariate(1), 1.0) for _ in range(50)]
    gains = [Weighted(-d.difference, 1.0) for d in losses]
    down, up = (ratio_bounds(one, confidence=0.95) for one in (losses, gains))
    mean = sum(d.difference for d in losses) / 50
    assert mean - down.low > down.high - mean
    assert (up.low, up.high) == pytest.approx((-down.high, -down.low))


def with_errors(both: tuple[Arm, Arm], *, side: int, number: int) -> tuple[Arm, Arm]:
    made = list(both)
    failed = tuple(
        replace(s, finish="error", value=0.0) if i < number else s
        for i, s in enumerate(made[side].samples["wiki"])
    )
    score = replace(made[side].scorecard.tasks[0], num_errors=number)
    card = replace(made[side].scorecard, tasks=(score,))
    made[side] = replace(made[side], samples={"wiki": failed}, scorecard=card)
    return made[0], made[1]


@pytest.mark.parametrize("side", [0, 1])
def test_texts_that_were_not_read_never_pass(side: int) -> None:
    verdict = judged(with_errors(arms(0.9), side=side, number=1))
    assert verdict.reason_codes == (ReasonCode.REQUEST_ERRORS,)


@pytest.mark.parametrize("side", [0, 1])
def test_texts_that_were_not_read_in_time_never_pass(side: int) -> None:
    """Their value is 0, which would be the log-likelihood of a certain text."""
    both = list(arms(0.9))
    first, *others = both[side].samples["wiki"]
    samples = replace(first, value=0.0, finish="timeout"), *others
    mean = sum(s.value for s in others) / sum(s.weight or 0.0 for s in others)
    score = replace(both[side].scorecard.tasks[0], value=math.exp(-mean), num_timeouts=1)
    card = replace(both[side].scorecard, tasks=(score,))
    both[side] = Arm(scorecard=card, samples={"wiki": samples})
    verdict = judged((both[0], both[1]), max_truncated=0.5)
    assert verdict.reason_codes == (ReasonCode.REQUEST_ERRORS,)
    assert f"1 of the {NAMES[side]}'s answers did not come in time" in verdict.summary


def test_a_candidate_is_refused_in_spite_of_an_outage_if_nothing_could_save_it() -> None:
    salad = arms(20.0)
    assert judged(with_errors(salad, side=1, number=1)).decision is Decision.NO_GO
    unknown = judged(with_errors(arms(1.03), side=1, number=5))
    assert unknown.reason_codes == (ReasonCode.REQUEST_ERRORS,)
    assert judged(with_errors(salad, side=0, number=1)).decision is Decision.INCONCLUSIVE


def test_an_arm_that_lost_tokens_never_passes() -> None:
    baseline, candidate = arms(1.0)
    cut = replace(candidate.scorecard.tasks[0], num_prompts_cut=1)
    candidate = replace(candidate, scorecard=replace(candidate.scorecard, tasks=(cut,)))
    assert judged((baseline, candidate)).reason_codes == (ReasonCode.SCORE_MISSING,)


def test_a_score_that_its_documents_do_not_make_never_passes() -> None:
    baseline, candidate = arms(1.0)
    other = replace(candidate.scorecard.tasks[0], value=7.0)
    candidate = replace(candidate, scorecard=replace(candidate.scorecard, tasks=(other,)))
    assert judged((baseline, candidate)).reason_codes == (ReasonCode.SCORE_MISSING,)


def test_a_baseline_that_guesses_shows_nothing() -> None:
    both = arms(1.0)
    verdict = judged(both, rising(chance=1 / 7.39))
    assert verdict.reason_codes == (ReasonCode.BASELINE_TOO_WEAK,)
    assert judged(both, rising(chance=1 / 50)).decision is Decision.GO


def test_a_margin_that_is_met_oftener_is_wider() -> None:
    usual, often = (smallest_margin(rising(), 0.95, power=share) for share in (0.8, 0.95))
    assert chance_of_go(rising(relative_margin=often), 0.95) == pytest.approx(0.95)
    assert usual < often


def test_a_claim_of_no_loss_is_refuted_by_a_significant_one() -> None:
    verdict = judged(arms(1.006, noise=0.01), rising(claim=Claim.LOSSLESS))
    assert verdict.reason_codes[0] is ReasonCode.CLAIM_REFUTED
    assert judged(arms(0.999), rising(claim=Claim.LOSSLESS)).decision is Decision.GO


def test_documents_of_a_cluster_are_one() -> None:
    def grouped(one: Arm) -> Arm:
        values = one.samples["wiki"]
        named = tuple(replace(s, cluster=f"book {i % 5}") for i, s in enumerate(values))
        return replace(one, samples={"wiki": named})

    baseline, candidate = arms(1.0)
    both = grouped(baseline), grouped(candidate)
    verdict = judged(both, rising(cluster="book", clusters=5))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.tasks[0].num_clusters == 5


@pytest.mark.parametrize("form", [{"margin": 0.05}, {"relative_margin": 0.01}])
def test_values_of_the_other_form_are_refused(form: dict[str, float]) -> None:
    values = [1.0] * 60
    task = task_spec("wiki", **{"items": 60, "margin": None, **form})
    likely = arms(1.0)
    right = tuple(
        make_arm(name, {"wiki": answers("wiki", values)}) for name in ("baseline", "candidate")
    )
    both = likely if "margin" in form else (right[0], right[1])
    with pytest.raises(SuiteError, match="A relative_margin is of a perplexity"):
        judge(suite_of(task), *both, verified=True)


def test_neither_flips_nor_the_pool_hold_documents() -> None:
    likely, right = arms(1.004), [1.0] * 300
    both = []
    for one in likely:
        name = one.scorecard.arm
        other = make_arm(name, {"add": answers("add", right)})
        scores = (*one.scorecard.tasks, *other.scorecard.tasks)
        generation = {**one.scorecard.generation, **other.scorecard.generation}
        card = replace(one.scorecard, tasks=scores, generation=generation)
        both.append(replace(one, samples={**one.samples, **other.samples}, scorecard=card))
    tasks = rising(items=60, tier=Tier.ADVISORY), task_spec()
    verdict = judge(suite_of(*tasks), both[0], both[1], verified=True)
    assert (verdict.flips, verdict.flip_rate, verdict.pooled_difference) == ((), 0.0, 0.0)
    assert verdict.pooled is not None
    assert verdict.pooled.num_items == 300


def test_an_item_is_pooled_once_whatever_is_made_of_it() -> None:
    values = answers("a", [1.0] * 100)
    both = [make_arm(name, {"a": values, "b": values}) for name in NAMES]
    tasks = (task_spec("a", task="t", items=100), task_spec("b", task="t", items=100))
    verdict = judge(suite_of(*tasks), both[0], both[1], verified=True)
    assert verdict.pooled is not None
    assert verdict.pooled.num_items == 100


def test_the_plan_says_how_often_the_gate_will_say_go() -> None:
    """Drawn: 400 candidates of no loss, whose documents are as the plan expects."""
    draws = random.Random(11)  # noqa: S311  documents, no secrets
    spec = rising(items=60, spread=0.04)
    passed = 0
    for _ in range(400):
        seen = [Weighted(draws.gauss(0, spec.spread), 1.0) for _ in range(spec.items)]
        passed += ratio_bounds(seen, confidence=0.95).low > -math.log1p(0.01)
    assert chance_of_go(spec, 0.95) == pytest.approx(passed / 400, abs=0.06)


def test_the_smallest_margin_is_met_four_times_in_five() -> None:
    spec = rising(items=200, spread=0.05)
    (power,) = plan_power(suite_of(spec))
    assert (power.margin, power.task) == (0.01, spec)
    at_least = replace(spec, relative_margin=power.smallest_margin)
    assert chance_of_go(at_least, 0.95) == pytest.approx(0.8)


def test_a_suite_with_too_few_documents_is_refused_before_it_runs() -> None:
    with pytest.raises(SuiteError, match=r"9 documents show nothing.* at least 10"):
        check_margins(suite_of(rising(items=9)))
    check_margins(suite_of(rising(items=10)))


def test_a_pooled_margin_of_perplexities_alone_is_refused() -> None:
    suite: Suite = suite_of(rising(), pooled_margin=0.01)
    with pytest.raises(SuiteError, match="a pooled_margin needs tasks"):
        check_margins(suite)
