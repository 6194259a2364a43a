"""All tasks together, answers that end otherwise, claims of several tasks, and the noise floor."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import (
    Arm,
    Claim,
    Decision,
    PooledTest,
    Suite,
    Tier,
    Verdict,
    load,
    save,
)
from harness.errors import ReasonCode
from harness.gate import judge
from tests.gate.arms import answers, arms_of, make_arm
from tests.gate.test_perplexity import arms as perplexities
from tests.gate.test_perplexity import rising
from tests.nouns import suite_of, task_spec


def both(**lost: int) -> tuple[Arm, Arm]:
    """Both arms of several tasks of 300 items, with the items that each task lost."""
    right = {name: answers(name, [1.0] * 300) for name in lost}
    after = {n: answers(n, [0.0] * k + [1.0] * (300 - k)) for n, k in lost.items()}
    return make_arm("baseline", right), make_arm("candidate", after)


def pooled_of(pooled: PooledTest | None) -> PooledTest:
    assert pooled is not None
    return pooled


def three(**changes: object) -> Suite:
    hard = task_spec("hard", tier=Tier.ADVISORY)
    return suite_of(task_spec(), task_spec("sort"), hard, **changes)


def test_a_small_loss_on_every_task_is_a_warning_beside_go() -> None:
    """Two losses a task have p = 1/4; six over all tasks have p = 1/64."""
    verdict = judge(three(), *both(add=2, sort=2, hard=2), verified=True)
    pooled = pooled_of(verdict.pooled)
    assert (pooled.num_items, pooled.num_lost, pooled.num_won) == (900, 6, 0)
    assert pooled.p_value == 1 / 64
    assert pooled.alarm
    assert verdict.decision is Decision.GO
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR, ReasonCode.POOLED_ALARM)


def test_chance_is_no_alarm() -> None:
    verdict = judge(three(), *both(add=2, sort=2, hard=0), verified=True)
    assert pooled_of(verdict.pooled).p_value == 1 / 16
    assert not pooled_of(verdict.pooled).alarm
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR,)


def test_a_pooled_margin_asks_for_more_than_no_loss_at_all() -> None:
    """A significant loss that is within it is no alarm, for correct formats really lose a bit."""
    lenient = three(pooled_margin=0.02)
    verdict = judge(lenient, *both(add=2, sort=2, hard=2), verified=True)
    assert pooled_of(verdict.pooled).decision is Decision.GO
    assert not pooled_of(verdict.pooled).alarm
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR,)


@pytest.mark.parametrize(("hard", "decision"), [(20, "INCONCLUSIVE"), (90, "NO-GO")])
def test_a_pooled_margin_gates_even_where_only_advisory_tasks_lose(
    hard: int, decision: str
) -> None:
    strict = three(pooled_margin=0.02)
    verdict = judge(strict, *both(add=0, sort=0, hard=hard), verified=True)
    assert all(t.decision is Decision.GO for t in verdict.tasks if t.tier is Tier.CRITICAL)
    assert verdict.decision == decision
    assert verdict.reason_codes == (ReasonCode.POOLED_ALARM,)
    assert f"over all tasks together it lost {hard} and won 0 of all 900 items" in verdict.summary


def test_a_pooled_margin_is_not_met_by_items_that_nobody_answered() -> None:
    strict = three(pooled_margin=0.02)
    verdict = judge(strict, *both(add=0, sort=0), verified=True)
    assert verdict.tasks[2].reason is ReasonCode.SCORE_MISSING
    assert (verdict.decision, verdict.reason_codes) == (
        Decision.INCONCLUSIVE,
        (ReasonCode.POOLED_ALARM,),
    )


def test_a_pooled_margin_is_not_met_where_no_item_can_be_pooled() -> None:
    """The one critical task is a perplexity, which is not pooled, and nobody answered the other."""
    asked = suite_of(rising(), task_spec(tier=Tier.ADVISORY), pooled_margin=0.02)
    verdict = judge(asked, *perplexities(1.0), verified=True)
    assert verdict.tasks[0].decision is Decision.GO
    assert (verdict.decision, verdict.reason_codes) == (
        Decision.INCONCLUSIVE,
        (ReasonCode.POOLED_ALARM,),
    )
    assert "over all tasks together it shows nothing" in verdict.summary
    assert verdict.pooled_difference is None


@pytest.mark.parametrize(("finish", "decision"), [("timeout", "INCONCLUSIVE"), ("stop", "NO-GO")])
def test_late_answers_prove_no_loss_of_all_tasks_together(finish: str, decision: str) -> None:
    """80 of 400 items are wrong; those that came too late may have been right on a faster one."""
    items = 400
    asked = suite_of(
        task_spec(items=items, margin=0.3), pooled_margin=0.05, max_truncated=0.5, max_rise=0.5
    )
    right = answers("add", [1.0] * items)
    after = (*(replace(s, value=0.0, finish=finish) for s in right[:80]), *right[80:])
    both = make_arm("baseline", {"add": right}), make_arm("candidate", {"add": after})
    verdict = judge(asked, *both, verified=True)
    assert pooled_of(verdict.pooled).decision == decision
    assert verdict.decision == decision


def test_no_go_of_a_task_is_named_before_what_all_tasks_leave_open() -> None:
    strict = three(pooled_margin=0.1)
    verdict = judge(strict, *both(add=90, sort=0, hard=0), verified=True)
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes == (ReasonCode.TASK_INFERIOR, ReasonCode.POOLED_ALARM)


def test_values_and_clusters_are_pooled_by_their_signs() -> None:
    """Six values that fell and one cluster of losses: one of 2^7 sign patterns is as bad."""
    spread = task_spec("rouge", items=6, value_range=(0.0, 1.0), tier=Tier.ADVISORY)
    grouped = task_spec(items=4, cluster="x", clusters=2)
    before = {
        "add": tuple(replace(s, cluster="one") for s in answers("add", [1.0] * 4)),
        "rouge": answers("rouge", [0.5] * 6),
    }
    after = {
        "add": tuple(replace(s, cluster="one") for s in answers("add", [0.0] * 4)),
        "rouge": answers("rouge", [0.41, 0.42, 0.43, 0.44, 0.45, 0.46]),
    }
    verdict = judge(
        suite_of(grouped, spread),
        make_arm("baseline", before),
        make_arm("candidate", after),
        verified=True,
    )
    assert pooled_of(verdict.pooled).p_value == 1 / 2**7


def test_without_any_answer_nothing_is_pooled() -> None:
    verdict = judge(suite_of(), make_arm("baseline", {}), make_arm("candidate", {}), verified=True)
    assert verdict.pooled is None


def ending(arm: Arm, number: int, **changes: object) -> Arm:
    """The arm with its first answers ending otherwise; no answer becomes wrong by that."""
    (name,) = arm.samples
    first = (replace(s, **changes) for s in arm.samples[name][:number])  # type: ignore[arg-type]
    changed = (*first, *arm.samples[name][number:])
    (score,) = arm.scorecard.tasks
    cut = sum(sample.is_cut for sample in changed)
    card = replace(arm.scorecard, tasks=(replace(score, num_truncated=cut),))
    return Arm(scorecard=card, samples={name: changed})


@pytest.mark.parametrize(
    ("changes", "reason", "word"),
    [
        ({"finish": "length"}, ReasonCode.TRUNCATION_RISE, "cut off"),
        ({"finish": "thoughts_cut"}, ReasonCode.TRUNCATION_RISE, "cut off"),
        ({"answer": " \n"}, ReasonCode.EMPTY_RISE, "empty"),
    ],
)
def test_answers_that_end_otherwise_than_the_baselines_never_pass(
    changes: dict[str, object],
    reason: ReasonCode,
    word: str,
) -> None:
    """Five of 300 more are 1.7 %, and p = 1/32: beyond the tolerance of 1 %, and no chance."""
    baseline, candidate = arms_of(lost=0, won=0)
    verdict = judge(suite_of(), baseline, ending(candidate, 5, **changes), verified=True)
    assert (verdict.decision, verdict.reason_codes) == (Decision.INCONCLUSIVE, (reason,))
    assert f"5 of the candidate's 300 answers are {word}, where 0 of the" in verdict.summary
    assert "p = 0.031" in verdict.summary


@pytest.mark.parametrize("changes", [{"finish": "length"}, {"answer": ""}])
def test_a_rise_that_is_chance_or_tolerated_or_the_baselines_too_is_none(
    changes: dict[str, object],
) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    by_chance = judge(suite_of(), baseline, ending(candidate, 4, **changes), verified=True)
    assert by_chance.decision is Decision.GO
    lenient = suite_of(max_rise=0.02, max_truncated=0.1)
    tolerated = judge(lenient, baseline, ending(candidate, 6, **changes), verified=True)
    assert tolerated.decision is Decision.GO
    like_the_baseline = ending(baseline, 5, **changes), ending(candidate, 6, **changes)
    assert judge(suite_of(), *like_the_baseline, verified=True).decision is Decision.GO


def claimed(*names: str) -> Suite:
    return suite_of(*(task_spec(name, claim=Claim.LOSSLESS) for name in names))


def test_one_small_p_value_among_many_is_neither_proof_nor_go() -> None:
    """Five losses have p = 1/32: proof for a task alone, not the smallest of two (Holm: 2.5 %)."""
    alone = judge(claimed("add"), *both(add=5), verified=True)
    assert (alone.decision, alone.reason_codes[0]) == (Decision.NO_GO, ReasonCode.CLAIM_REFUTED)
    two = judge(claimed("add", "sort"), *both(add=5, sort=0), verified=True)
    assert two.decision is Decision.INCONCLUSIVE
    assert two.reason_codes[0] is ReasonCode.NOT_ENOUGH_EVIDENCE
    assert "p = 0.031" in two.summary


def test_a_second_small_p_value_is_proof_once_the_first_is() -> None:
    """Six losses have p = 1/64, below 2.5 %; then 1/32 is compared with 5 %."""
    verdict = judge(claimed("add", "sort"), *both(add=6, sort=5), verified=True)
    assert [t.decision for t in verdict.tasks] == [Decision.NO_GO, Decision.NO_GO]
    assert verdict.reason_codes[0] is ReasonCode.CLAIM_REFUTED


@pytest.mark.parametrize(
    ("finish", "decision", "reason"),
    [
        ("timeout", Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE),
        ("stop", Decision.NO_GO, ReasonCode.CLAIM_REFUTED),
    ],
)
def test_late_answers_neither_refute_a_claim_of_no_loss_nor_pass_it(
    finish: str, decision: Decision, reason: ReasonCode
) -> None:
    """6 of 400 items are lost, with p = 0.016 of no loss; they may have been right if not late."""
    right = answers("add", [1.0] * 400)
    after = (*(replace(s, value=0.0, finish=finish) for s in right[:6]), *right[6:])
    asked = suite_of(task_spec(items=400, claim=Claim.LOSSLESS), max_rise=0.5)
    both = make_arm("baseline", {"add": right}), make_arm("candidate", {"add": after})
    verdict = judge(asked, *both, verified=True)
    assert (verdict.decision, verdict.reason_codes[0]) == (decision, reason)
    assert verdict.tasks[0].p_value == pytest.approx(2**-6)


def test_an_outage_refutes_no_claim() -> None:
    """Five losses would, but one unanswered item counts as won: 7/64 is no proof."""
    baseline, candidate = both(add=5)
    failed = ending(candidate, 0)
    last = replace(candidate.samples["add"][-1], finish="error", value=0.0)
    samples = {"add": (*candidate.samples["add"][:-1], last)}
    score = replace(failed.scorecard.tasks[0], num_errors=1)
    down = Arm(scorecard=replace(failed.scorecard, tasks=(score,)), samples=samples)
    verdict = judge(claimed("add"), baseline, down, verified=True)
    assert verdict.tasks[0].p_value == 7 / 64
    assert (verdict.decision, verdict.reason_codes[0]) == (
        Decision.INCONCLUSIVE,
        ReasonCode.REQUEST_ERRORS,
    )


def test_the_baselines_own_flips_stand_beside_the_candidates() -> None:
    baseline, candidate = both(add=6, sort=0)
    _, rerun = both(add=3, sort=0)
    verdict = judge(
        suite_of(task_spec(), task_spec("sort")), baseline, candidate, verified=True, rerun=rerun
    )
    assert verdict.flip_rate == 6 / 600
    assert verdict.rerun_flip_rate == 3 / 600
    assert [t.rerun_flip_rate for t in verdict.tasks] == [3 / 300, 0.0]


def test_a_rerun_decides_nothing() -> None:
    baseline, candidate = arms_of(lost=2, won=0)
    _, noisy = arms_of(lost=200, won=0)
    plain = judge(suite_of(), baseline, candidate, verified=True)
    noted = judge(suite_of(), baseline, candidate, verified=True, rerun=noisy)
    assert noted.tasks[0].rerun_flip_rate == 200 / 300
    assert replace(noted.tasks[0], rerun_flip_rate=None) == plain.tasks[0]
    assert noted.reason_codes == plain.reason_codes


def test_a_task_that_the_rerun_lacks_has_no_noise_floor() -> None:
    verdict = judge(
        suite_of(), *arms_of(lost=2, won=1), verified=True, rerun=make_arm("baseline", {})
    )
    assert verdict.rerun_flip_rate is None
    assert verdict.tasks[0].rerun_flip_rate is None


FORMS: dict[str, dict[str, object]] = {
    "margin": {},
    "recovery": {"margin": None, "recovery": 0.9},
    "lossless": {"claim": Claim.LOSSLESS},
    "clusters": {"cluster": "x", "clusters": 50},
    "values": {"value_range": (0.0, 1.0)},
}


def form_arms(after: list[float]) -> tuple[Arm, Arm]:
    """A baseline of 300 right items in 50 clusters, and a candidate that answers the first ones."""
    given = (answers("add", values) for values in ([1.0] * 300, after))
    left, right = (
        tuple(replace(s, cluster=f"group {s.doc_id % 50}") for s in made) for made in given
    )
    return make_arm("baseline", {"add": left}), make_arm("candidate", {"add": right})


@pytest.mark.parametrize("form", FORMS)
def test_no_form_passes_a_task_that_is_empty_or_partial_or_failed(form: str) -> None:
    asked = suite_of(task_spec(**FORMS[form]))

    def outcome(baseline: Arm, candidate: Arm) -> tuple[Decision, ReasonCode]:
        verdict = judge(asked, baseline, candidate, verified=True)
        return verdict.decision, verdict.reason_codes[0]

    whole = form_arms([1.0] * 300)
    assert outcome(*whole)[0] is Decision.GO
    missing = Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING
    assert outcome(*form_arms([1.0] * 299)) == missing
    assert outcome(*form_arms([])) == missing
    assert outcome(whole[0], make_arm("candidate", {})) == missing
    down = tuple(replace(s, finish="error", value=0.0) for s in whole[1].samples["add"])
    for failed in (down, (down[0], *whole[1].samples["add"][1:])):
        found = outcome(whole[0], make_arm("candidate", {"add": failed}))
        assert found[0] is Decision.INCONCLUSIVE
        assert found[1] in {ReasonCode.REQUEST_ERRORS, ReasonCode.SCORE_MISSING}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_sees_a_catastrophe_even_with_some_requests_failed(form: str) -> None:
    baseline, candidate = form_arms([0.0] * 300)
    mixed = tuple(
        replace(s, finish="error") if s.doc_id < 20 else s for s in candidate.samples["add"]
    )
    verdict = judge(
        suite_of(task_spec(**FORMS[form])),
        baseline,
        make_arm("candidate", {"add": mixed}),
        verified=True,
    )
    assert verdict.decision is Decision.NO_GO


def test_a_verdict_is_read_back_whole(tmp_path: Path) -> None:
    kept = task_spec(margin=None, recovery=0.9, claim=Claim.LOSSLESS)
    verdict = judge(suite_of(kept), *both(add=3), verified=True)
    save(verdict, tmp_path / "verdict.json")
    assert load(Verdict, tmp_path / "verdict.json") == verdict
