import json
import re
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    Decision,
    Deployment,
    Finding,
    Severity,
    Tier,
    Verdict,
)
from harness.errors import IncomparableError, ReasonCode, SuiteError
from harness.gate import Subject, judge
from tests.gate.arms import answers, arms_of, make_arm, quantized
from tests.nouns import suite_of, task_spec


def rescored(arm: Arm, **changes: object) -> Arm:
    """The arm with its first task's score changed."""
    first, *rest = arm.scorecard.tasks
    first = replace(first, **changes)  # type: ignore[arg-type]  # the fields vary by test
    return replace(arm, scorecard=replace(arm.scorecard, tasks=(first, *rest)))


def redeployed(arm: Arm, deployment: Deployment) -> Arm:
    return replace(arm, scorecard=replace(arm.scorecard, deployment=deployment))


def leading(verdict: Verdict) -> tuple[Decision, ReasonCode]:
    return verdict.decision, verdict.reason_codes[0]


def test_an_equal_candidate_is_go() -> None:
    verdict = judge(
        suite_of(), *arms_of(lost=4, won=3), verified=True, subject=Subject("m", "NVFP4")
    )
    assert leading(verdict) == (Decision.GO, ReasonCode.NON_INFERIOR)
    assert (verdict.model, verdict.scheme, verdict.suite) == ("m", "NVFP4", "tiny")
    task = verdict.tasks[0]
    assert (task.num_items, task.num_lost, task.num_won) == (300, 4, 3)
    assert task.difference == pytest.approx(-1 / 300)
    assert verdict.flip_rate == pytest.approx(7 / 300)
    assert verdict.pooled_difference == pytest.approx(-1 / 300)
    assert task.low is not None
    assert -0.05 < task.low < -1 / 300


def test_a_proven_loss_is_no_go() -> None:
    verdict = judge(suite_of(), *arms_of(lost=60, won=3), verified=True)
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)
    assert "add went from 99.0% to 80.0%" in verdict.summary


def test_an_interval_across_the_margin_is_inconclusive() -> None:
    verdict = judge(suite_of(), *arms_of(lost=18, won=3), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE)


def test_a_missing_score_never_passes() -> None:
    verdict = judge(
        suite_of(task_spec(), task_spec("sort")), *arms_of(lost=0, won=0), verified=True
    )
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "sort: the baseline has no score" in verdict.summary
    assert verdict.tasks[1].baseline is None


def test_empty_results_never_pass() -> None:
    verdict = judge(suite_of(), make_arm("baseline", {}), make_arm("candidate", {}), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert verdict.flip_rate is None
    assert verdict.pooled_difference is None
    zero = judge(
        suite_of(),
        make_arm("baseline", {"add": ()}),
        make_arm("candidate", {"add": ()}),
        verified=True,
    )
    assert leading(zero) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)


def test_a_task_that_only_the_candidate_lacks_keeps_the_baselines_accuracy() -> None:
    baseline, _ = arms_of(lost=0, won=0)
    verdict = judge(suite_of(), baseline, make_arm("candidate", {}), verified=True)
    assert "add: the candidate has no score" in verdict.summary
    assert (verdict.tasks[0].baseline, verdict.tasks[0].candidate) == (1.0, None)


def test_fewer_items_than_the_suite_asks_for_never_pass() -> None:
    verdict = judge(suite_of(), *arms_of(lost=0, won=0, items=299), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "answered 299 of 300 items" in verdict.summary


def test_a_score_without_its_samples_never_passes() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    bare = replace(candidate, samples={"add": candidate.samples["add"][:10]})
    verdict = judge(suite_of(), baseline, bare, verified=True)
    assert "has 10 samples behind a score of 300 items" in verdict.summary
    assert verdict.decision is Decision.INCONCLUSIVE


def test_a_score_that_is_not_its_samples_mean_never_passes() -> None:
    baseline, candidate = arms_of(lost=3, won=0)
    verdict = judge(suite_of(), baseline, rescored(candidate, value=1.0), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "score 1.0000, but its samples' mean is 0.9900" in verdict.summary


def test_prompts_that_lost_tokens_never_pass() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    verdict = judge(suite_of(), rescored(baseline, num_prompts_cut=2), candidate, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)


def test_a_failed_request_is_unknown_and_not_wrong() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    first, *rest = candidate.samples["add"]
    failed = replace(first, finish="error", value=0.0)
    candidate = replace(candidate, samples={"add": (failed, *rest)})
    verdict = judge(suite_of(), baseline, rescored(candidate, num_errors=1), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.REQUEST_ERRORS)
    assert verdict.tasks[0].num_lost == 0
    assert verdict.tasks[0].num_items == 299


def test_an_outage_is_no_proof_of_a_loss() -> None:
    down = answers("add", [0.0] * 300, finish="error")
    verdict = judge(
        suite_of(),
        make_arm("baseline", {"add": answers("add", [1.0] * 300)}),
        make_arm("candidate", {"add": down}),
        verified=True,
    )
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.REQUEST_ERRORS)


def test_a_catastrophe_is_no_go_even_with_some_requests_failed() -> None:
    answered = answers("add", [0.0] * 300)
    mixed = tuple(replace(s, finish="error") if s.doc_id < 20 else s for s in answered)
    verdict = judge(
        suite_of(),
        make_arm("baseline", {"add": answers("add", [1.0] * 300)}),
        make_arm("candidate", {"add": mixed}),
        verified=True,
    )
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)


def test_a_catastrophe_is_no_go_even_if_every_answer_is_cut_off_and_nothing_was_verified() -> None:
    verdict = judge(
        suite_of(),
        make_arm("baseline", {"add": answers("add", [1.0] * 300)}),
        make_arm("candidate", {"add": answers("add", [0.0] * 300, finish="length")}),
        verified=False,
    )
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes == (
        ReasonCode.TASK_INFERIOR,
        ReasonCode.VERIFY_SKIPPED,
    )


@pytest.mark.parametrize("which", ["baseline", "candidate"])
def test_answers_cut_off_in_either_arm_never_pass(which: str) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    if which == "baseline":
        baseline = rescored(baseline, num_truncated=7)
    else:
        candidate = rescored(candidate, num_truncated=7)
    verdict = judge(suite_of(), baseline, candidate, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.TRUNCATED_ANSWERS)
    assert which in verdict.summary
    tolerated = judge(suite_of(max_truncated=0.03), baseline, candidate, verified=True)
    assert tolerated.decision is Decision.GO


def test_it_is_said_which_budget_was_outrun() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    candidate = rescored(candidate, num_truncated=7, num_thoughts_cut=5, num_timeouts=1)
    verdict = judge(suite_of(), baseline, candidate, verified=True)
    assert (
        "8 of the candidate's 300 answers outran their budget (5 that of their thoughts, 2 their "
        "own, 1 the time for an answer)"
    ) in verdict.summary


def test_a_baseline_that_guesses_shows_nothing() -> None:
    guessed = [1.0, 0.0, 0.0, 0.0] * 75
    both = (
        make_arm("baseline", {"add": answers("add", guessed)}),
        make_arm("candidate", {"add": answers("add", guessed)}),
    )
    verdict = judge(suite_of(task_spec(chance=0.25)), *both, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.BASELINE_TOO_WEAK)
    assert judge(suite_of(task_spec(chance=0.05)), *both, verified=True).decision is Decision.GO


def test_a_baseline_so_low_that_salad_would_be_within_the_margin_shows_nothing() -> None:
    verdict = judge(
        suite_of(),
        make_arm("baseline", {"add": answers("add", [1.0] * 6 + [0.0] * 294)}),
        make_arm("candidate", {"add": answers("add", [0.0] * 300)}),
        verified=True,
    )
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.BASELINE_TOO_WEAK)


def test_a_run_that_was_not_verified_never_passes() -> None:
    verdict = judge(suite_of(), *arms_of(lost=0, won=0), verified=False)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.VERIFY_SKIPPED)


def test_arithmetic_that_was_declared_and_not_computed_never_passes() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    weight_only = quantized(exercised=("weights:nvfp4",), device="NVIDIA H200 (sm_90)")
    verdict = judge(suite_of(), baseline, redeployed(candidate, weight_only), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.NUMERICS_NOT_EXERCISED)
    assert "declared but not computed: inputs:nvfp4" in verdict.scope
    assert "the baseline was answered on cpu" in verdict.scope


def test_a_suite_without_a_critical_task_never_passes() -> None:
    advisory = suite_of(task_spec(tier=Tier.ADVISORY))
    verdict = judge(advisory, *arms_of(lost=0, won=0), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "no critical task" in verdict.summary


def two_tasks(*, lost: tuple[int, int]) -> tuple[Arm, Arm]:
    names = ("add", "sort")
    right = {name: answers(name, [1.0] * 300) for name in names}
    answered = {
        name: answers(name, [0.0] * n + [1.0] * (300 - n))
        for name, n in zip(names, lost, strict=True)
    }
    return make_arm("baseline", right), make_arm("candidate", answered)


def test_no_go_wins_over_inconclusive_which_wins_over_go() -> None:
    both = suite_of(task_spec(), task_spec("sort"))
    decisions = {
        lost: judge(both, *two_tasks(lost=lost), verified=True)
        for lost in ((2, 2), (2, 16), (100, 16), (2, 100))
    }
    assert [v.decision.value for v in decisions.values()] == [
        "GO",
        "INCONCLUSIVE",
        "NO-GO",
        "NO-GO",
    ]
    assert decisions[100, 16].reason_codes == (
        ReasonCode.TASK_INFERIOR,
        ReasonCode.NOT_ENOUGH_EVIDENCE,
    )


def test_an_advisory_task_is_reported_and_does_not_gate() -> None:
    asked = suite_of(task_spec(), task_spec("sort", tier=Tier.ADVISORY))
    verdict = judge(asked, *two_tasks(lost=(0, 200)), verified=True)
    assert verdict.decision is Decision.GO
    assert verdict.tasks[1].decision is Decision.NO_GO


def test_flips_show_lost_items_first_and_every_task_in_turn() -> None:
    asked = suite_of(task_spec(), task_spec("sort"))
    verdict = judge(asked, *two_tasks(lost=(100, 3)), verified=True)
    assert len(verdict.flips) == 50
    assert [f.task for f in verdict.flips[:7]] == ["add", "sort"] * 3 + ["add"]
    assert all(f.lost and f.candidate == "wrong" for f in verdict.flips)


def test_won_items_follow_the_lost_ones() -> None:
    verdict = judge(suite_of(), *arms_of(lost=2, won=3), verified=True)
    assert [f.lost for f in verdict.flips] == [True, True, False, False, False]


def test_a_metric_that_is_not_right_or_wrong_is_refused() -> None:
    partial = answers("add", [0.5] * 300)
    with pytest.raises(SuiteError, match=r"item 0 scored 0\.5"):
        judge(
            suite_of(),
            make_arm("baseline", {"add": partial}),
            make_arm("candidate", {"add": partial}),
            verified=True,
        )


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("engine", "vllm", "engine"),
        ("version", "0.2.0", "the engine's version"),
        ("dtype", "bfloat16", "the type of the arithmetic"),
    ],
)
def test_arms_from_different_engines_are_not_compared(
    field: str,
    value: str,
    named: str,
) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    with pytest.raises(IncomparableError, match=f"differ in {named}: .*'{value}'"):
        judge(
            suite_of(), baseline, redeployed(candidate, quantized(**{field: value})), verified=True
        )


def test_different_kernels_are_compared() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    shown = replace(baseline.scorecard.deployment, kernels={"linear": "native"})
    native = redeployed(baseline, shown)
    assert judge(suite_of(), native, candidate, verified=True).decision is Decision.GO


def test_scores_of_a_baseline_are_no_candidate() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    with pytest.raises(IncomparableError, match="are those of a baseline"):
        judge(suite_of(), candidate, baseline, verified=True)


def test_a_quantized_model_is_no_baseline() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    quantized = replace(baseline.scorecard.deployment, declared=("weights:fp8",))
    with pytest.raises(IncomparableError, match=r"is quantized \(weights:fp8\)"):
        judge(suite_of(), redeployed(baseline, quantized), candidate, verified=True)


def test_a_model_is_not_compared_with_itself() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    digest = candidate.scorecard.deployment.checkpoint_digest
    same = replace(baseline.scorecard.deployment, checkpoint_digest=digest)
    with pytest.raises(IncomparableError, match="both arms are the same model"):
        judge(suite_of(), redeployed(baseline, same), candidate, verified=True)


def test_the_baseline_is_named_with_its_digest() -> None:
    verdict = judge(suite_of(), *arms_of(lost=0, won=0), verified=True)
    assert (verdict.baseline, verdict.baseline_digest) == ("/models/x", "b" * 64)
    assert "the unquantized /models/x, bbbbbbbbbbbb" in verdict.scope[0]


def test_a_changed_suite_is_not_compared() -> None:
    with pytest.raises(IncomparableError, match="the baseline was scored with another suite"):
        judge(suite_of(digest="e" * 64), *arms_of(lost=0, won=0), verified=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lm_eval_version": "0.4.12"}, "lm-eval's version"),
        ({"generation": {"add": '{"max_gen_toks": 32}'}}, "max_gen_toks of task 'add'"),
    ],
)
def test_different_ways_of_asking_are_not_compared(changes: dict[str, object], named: str) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    changed = replace(candidate.scorecard, **changes)  # type: ignore[arg-type]  # varies
    with pytest.raises(IncomparableError, match=named):
        judge(suite_of(), baseline, replace(candidate, scorecard=changed), verified=True)


ARGUMENTS = {
    "output_type": ("generate_until", "multiple_choice"),
    "generation": ({"temperature": 0.0}, {"temperature": 1.0}),
    "num_fewshot": (5, 4),
    "apply_chat_template": (True, False),
    "thinking": (False, True),
    "think_end_token": (None, "</think>"),
    "thinking_budget": (0, 1024),
    "chats_rendered_by": ("harness", "server"),
    "max_model_len": (8192, 4096),
    "batch_size": (16, 8),
    "seed": (1234, 1235),
}
"""What the score room records of how a task is asked, with another value of each."""


@pytest.mark.parametrize("argument", sorted(ARGUMENTS))
def test_each_argument_that_shapes_answers_is_named_when_it_differs(argument: str) -> None:
    arguments = {name: values[0] for name, values in ARGUMENTS.items()}
    left, right = ARGUMENTS[argument]
    baseline, candidate = (
        replace(arm, scorecard=replace(arm.scorecard, generation={"add": json.dumps(said)}))
        for arm, said in zip(
            arms_of(lost=0, won=0), (arguments, arguments | {argument: right}), strict=True
        )
    )
    both = re.escape(f"'{json.dumps(left)}', candidate '{json.dumps(right)}'")
    with pytest.raises(
        IncomparableError, match=f"differ in {argument} of task 'add': baseline {both}"
    ):
        judge(suite_of(), baseline, candidate, verified=True)


def test_an_argument_that_one_arm_does_not_record_is_a_difference() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    said = {"add": '{"max_gen_toks": 16, "seed": 1}'}
    changed = replace(candidate, scorecard=replace(candidate.scorecard, generation=said))
    with pytest.raises(IncomparableError, match="differ in seed of task 'add': baseline 'null'"):
        judge(suite_of(), baseline, changed, verified=True)


@pytest.mark.parametrize("field", ["doc_id", "doc_hash", "prompt_hash", "target_hash", "cluster"])
def test_different_items_are_not_compared(field: str) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    items = list(candidate.samples["add"])
    other = {field: 999 if field == "doc_id" else "other"}
    items[7] = replace(items[7], **other)  # type: ignore[arg-type]  # the field varies
    changed = replace(candidate, samples={"add": tuple(items)})
    with pytest.raises(IncomparableError, match=f"task 'add', item 7: {field} differs"):
        judge(suite_of(), baseline, changed, verified=True)


def test_items_in_another_order_are_not_compared() -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    turned = replace(candidate, samples={"add": candidate.samples["add"][::-1]})
    with pytest.raises(IncomparableError, match="item 0: doc_id differs"):
        judge(suite_of(), baseline, turned, verified=True)


def finding(severity: Severity, reason: ReasonCode) -> Finding:
    return Finding(
        id="parameter-not-filled",
        severity=severity,
        message="192 parameters were filled by no tensor",
        reason=reason,
        incident="expert input scales deleted",
    )


@pytest.mark.parametrize(
    "reason", [ReasonCode.SCALE_MISSING, ReasonCode.SCALE_MISMATCH, ReasonCode.LOAD_MISMATCH]
)
def test_a_fault_that_the_deployment_shows_is_no_go_however_good_the_scores_are(
    reason: ReasonCode,
) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    shown = quantized(findings=(finding(Severity.ERROR, reason),))
    verdict = judge(suite_of(), baseline, redeployed(candidate, shown), verified=False)
    assert leading(verdict) == (Decision.NO_GO, reason)
    assert "192 parameters were filled by no tensor" in verdict.summary


def test_a_warning_of_the_deployment_is_reported_and_decides_nothing() -> None:
    baseline, candidate = arms_of(lost=4, won=3)
    shown = quantized(findings=(finding(Severity.WARNING, ReasonCode.SCALE_MISMATCH),))
    verdict = judge(suite_of(), baseline, redeployed(candidate, shown), verified=True)
    assert leading(verdict) == (Decision.GO, ReasonCode.NON_INFERIOR)
    assert any("warning parameter-not-filled" in line for line in verdict.scope)


def test_a_proven_fault_outranks_an_inferior_task() -> None:
    baseline, candidate = arms_of(lost=60, won=3)
    shown = quantized(findings=(finding(Severity.ERROR, ReasonCode.SCALE_MISSING),))
    verdict = judge(suite_of(), baseline, redeployed(candidate, shown), verified=True)
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.SCALE_MISSING)
    assert ReasonCode.TASK_INFERIOR in verdict.reason_codes


@pytest.mark.parametrize("asked", ["", "[]", "{", "[" * 5000, '{"a": NaN}'])
def test_arguments_that_are_none_are_not_compared(asked: str) -> None:
    baseline, candidate = arms_of(lost=0, won=0)
    card = replace(candidate.scorecard, generation={"add": asked})
    with pytest.raises(IncomparableError, match="what the candidate was asked in 'add'"):
        judge(suite_of(), baseline, replace(candidate, scorecard=card), verified=True)
