"""Looks at a task before all of it is answered: never GO, and NO-GO only if it was paid for."""

from dataclasses import replace

import pytest

from harness.artifacts import Arm, Decision, EarlyEnd, Sample, Tier, Verdict, WhyEnded
from harness.errors import IncomparableError, ReasonCode
from harness.gate import items_to_decide, judge, look, looks_of
from harness.gate.early import _score_of
from harness.gate.sequential import confidence_of, spent
from harness.gate.tango import tango_bounds
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of, task_spec

SPEC = task_spec(items=320)
SUITE = suite_of(SPEC, task_spec("sort", items=100))
RIGHT = answers("add", [1.0] * 320)


def partly(lost: int, of: int) -> tuple[Sample, ...]:
    """Return a candidate's answers to every other item, the first of them lost."""
    chosen = answers("add", [0.0 if i < 2 * lost else 1.0 for i in range(320)])[::2]
    return chosen[:of]


def ended_arm(samples: tuple[Sample, ...], why: WhyEnded = WhyEnded.INFERIOR) -> Arm:
    end = EarlyEnd(
        task="add",
        why=why,
        items=tuple(s.doc_id for s in samples),
        not_asked=("sort",),
        share=0.1,
        seconds=2.0,
    )
    return make_arm("candidate", {"add": samples}, ended=end)


def judged(candidate: Arm) -> Verdict:
    baseline = make_arm("baseline", {"add": RIGHT, "sort": answers("sort", [1.0] * 100)})
    return judge(SUITE, baseline, candidate, verified=True)


def test_what_is_spent_grows_to_what_the_suite_allows() -> None:
    shares = [spent(share, 0.05) for share in (1 / 8, 1 / 4, 1 / 2, 1.0)]
    assert shares == sorted(shares)
    assert shares[0] < 1e-6
    assert shares[-1] == pytest.approx(0.05)


def test_looks_spend_no_more_than_one_at_the_end() -> None:
    looks: tuple[int, ...] = ()
    levels = 0.0
    for asked in (*looks_of(SPEC), SPEC.items):
        levels += 1 - confidence_of(SPEC, looks, asked, 0.95)
        looks = (*looks, asked)
    assert levels == pytest.approx(0.05)


def test_advisory_tasks_are_not_looked_at() -> None:
    assert looks_of(replace(SPEC, tier=Tier.ADVISORY)) == ()
    assert looks_of(SPEC) == (40, 80, 160)


def test_a_ruined_candidate_is_known_at_the_first_look() -> None:
    assert look(SPEC, SUITE, RIGHT, partly(40, 40), ()) is WhyEnded.INFERIOR
    assert items_to_decide(SPEC, 0.95) <= 80


def test_a_loss_that_one_look_would_prove_is_not_enough_early() -> None:
    lost = next(n for n in range(40) if tango_bounds(n, 0, 40, confidence=0.95).high < -0.05)
    assert look(SPEC, SUITE, RIGHT, partly(lost, 40), ()) is None


def test_go_is_out_of_reach_only_if_winning_all_the_rest_would_not_do() -> None:
    some_wrong = answers("add", [1.0] * 200 + [0.0] * 120)
    assert look(SPEC, SUITE, RIGHT, partly(12, 160), (40, 80)) is WhyEnded.OUT_OF_REACH
    assert look(SPEC, SUITE, some_wrong, partly(12, 160), (40, 80)) is None
    assert look(SPEC, SUITE, RIGHT, partly(8, 80), (40,)) is None


def test_answers_that_are_late_prove_no_loss_early() -> None:
    late = tuple(replace(s, finish="timeout") for s in partly(40, 40))
    assert look(SPEC, SUITE, RIGHT, late, ()) is None


def test_answers_to_other_prompts_are_not_looked_at() -> None:
    others = tuple(replace(s, prompt_hash=f"another {s.doc_id}") for s in partly(40, 40))
    assert look(SPEC, SUITE, RIGHT, others, ()) is None


def test_a_task_that_was_never_looked_at_needs_what_the_suite_says_and_no_more() -> None:
    allowed = (0.8, 0.9, 0.95, 0.975, 0.98, 0.99, 0.999)
    assert tuple(confidence_of(SPEC, (), SPEC.items, each) for each in allowed) == allowed


def test_an_early_no_go_says_what_was_not_asked() -> None:
    verdict = judged(ended_arm(partly(40, 40)))
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes == (ReasonCode.TASK_INFERIOR, ReasonCode.ENDED_EARLY)
    assert [t.num_items for t in verdict.tasks] == [40, 0]
    assert "not asked" in verdict.tasks[1].message
    assert any("40 of 320 items of add were asked; nothing of sort" in s for s in verdict.scope)


def test_an_end_that_the_answers_do_not_bear_out_is_no_no_go() -> None:
    verdict = judged(ended_arm(partly(0, 160)))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert verdict.reason_codes[0] is ReasonCode.ENDED_EARLY


def test_a_part_of_the_answers_never_passes_as_all_of_them() -> None:
    whole = replace(ended_arm(partly(0, 160)).scorecard, ended=None)
    samples = {"add": RIGHT[:160]}
    verdict = judged(Arm(scorecard=whole, samples=samples))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert ReasonCode.SCORE_MISSING in verdict.reason_codes


def test_thoughts_that_were_cut_are_counted_in_a_part_too() -> None:
    cut = (replace(RIGHT[0], value=0.0, answer="", finish="thoughts_cut"), *RIGHT[1:160])
    score = _score_of(make_arm("candidate", {"add": RIGHT}).scorecard.tasks[0], cut)
    assert (score.num_truncated, score.num_thoughts_cut, score.num_items) == (1, 1, 160)


def test_a_baseline_that_ended_early_is_none() -> None:
    arm = make_arm("baseline", {"add": RIGHT}, ended=ended_arm(RIGHT).scorecard.ended)
    candidate = make_arm("candidate", {"add": RIGHT})
    with pytest.raises(IncomparableError, match="ended early"):
        judge(suite_of(SPEC), arm, candidate, verified=True)


def test_an_end_at_a_task_that_the_suite_lacks_is_refused() -> None:
    baseline, candidate = make_arm("baseline", {"add": RIGHT}), ended_arm(partly(40, 40))
    named = suite_of(task_spec("sort", items=100))
    with pytest.raises(IncomparableError, match="ended early at task 'add', which 'tiny' does not"):
        judge(named, baseline, candidate, verified=True)
    with pytest.raises(IncomparableError, match="scored with another suite"):
        judge(replace(named, digest="e" * 64), baseline, candidate, verified=True)


def test_what_looks_have_spent_is_missing_at_the_end() -> None:
    spec = task_spec(items=320, margin=0.02)
    lost = next(n for n in range(320) if tango_bounds(n, 0, 320, confidence=0.95).high < -0.02)
    candidate = make_arm("candidate", {"add": answers("add", [0.0] * lost + [1.0] * (320 - lost))})
    baseline = make_arm("baseline", {"add": RIGHT})
    looked = replace(candidate.scorecard, looks={"add": looks_of(spec)})
    once, often = (
        judge(suite_of(spec), baseline, replace(candidate, scorecard=card), verified=True)
        for card in (candidate.scorecard, looked)
    )
    assert once.decision is Decision.NO_GO
    bounds = tango_bounds(lost, 0, 320, confidence=confidence_of(spec, looks_of(spec), 320, 0.95))
    assert (often.decision is Decision.NO_GO) == (bounds.high < -0.02)
    assert any("looked at after 40, 80, 160 items" in line for line in often.scope)
