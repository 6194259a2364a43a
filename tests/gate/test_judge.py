import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    Decision,
    Deployment,
    Finding,
    Sample,
    Severity,
    Suite,
    TaskScore,
    TaskSpec,
    Tier,
    Verdict,
)
from harness.errors import IncomparableError, ReasonCode, SuiteError
from harness.gate import Subject, judge

MakeTask = Callable[..., TaskSpec]
MakeSuite = Callable[..., Suite]
MakeArm = Callable[..., Arm]
MakeArms = Callable[..., tuple[Arm, Arm]]
MakeSamples = Callable[..., tuple[Sample, ...]]
MakeScore = Callable[..., TaskScore]
MakeDeployment = Callable[..., Deployment]


def rescored(arm: Arm, **changes: object) -> Arm:
    """The arm with its first task's score changed."""
    first, *rest = arm.scorecard.tasks
    first = replace(first, **changes)  # type: ignore[arg-type]  # the fields vary by test
    return replace(arm, scorecard=replace(arm.scorecard, tasks=(first, *rest)))


def redeployed(arm: Arm, deployment: Deployment) -> Arm:
    return replace(arm, scorecard=replace(arm.scorecard, deployment=deployment))


def leading(verdict: Verdict) -> tuple[Decision, ReasonCode]:
    return verdict.decision, verdict.reason_codes[0]


def test_an_equal_candidate_is_go(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=4, won=3), verified=True, subject=Subject("m", "NVFP4"))
    assert leading(verdict) == (Decision.GO, ReasonCode.NON_INFERIOR)
    assert (verdict.model, verdict.scheme, verdict.suite) == ("m", "NVFP4", "tiny")
    task = verdict.tasks[0]
    assert (task.num_items, task.num_lost, task.num_won) == (300, 4, 3)
    assert task.difference == pytest.approx(-1 / 300)
    assert verdict.flip_rate == pytest.approx(7 / 300)
    assert verdict.pooled_difference == pytest.approx(-1 / 300)
    assert task.low is not None
    assert -0.05 < task.low < -1 / 300


def test_a_proven_loss_is_no_go(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=60, won=3), verified=True)
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)
    assert "add went from 99.0% to 80.0%" in verdict.summary


def test_an_interval_across_the_margin_is_inconclusive(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=18, won=3), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.NOT_ENOUGH_EVIDENCE)


def test_a_missing_score_never_passes(suite: MakeSuite, task: MakeTask, arms: MakeArms) -> None:
    verdict = judge(suite(task(), task("sort")), *arms(lost=0, won=0), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "sort: the baseline has no score" in verdict.summary
    assert verdict.tasks[1].baseline is None


def test_empty_results_never_pass(suite: MakeSuite, arm: MakeArm) -> None:
    verdict = judge(suite(), arm("baseline", {}), arm("candidate", {}), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert verdict.flip_rate is None
    assert verdict.pooled_difference is None
    zero = judge(
        suite(), arm("baseline", {"add": ()}), arm("candidate", {"add": ()}), verified=True
    )
    assert leading(zero) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)


def test_a_task_that_only_the_candidate_lacks_keeps_the_baselines_accuracy(
    suite: MakeSuite, arms: MakeArms, arm: MakeArm
) -> None:
    baseline, _ = arms(lost=0, won=0)
    verdict = judge(suite(), baseline, arm("candidate", {}), verified=True)
    assert "add: the candidate has no score" in verdict.summary
    assert (verdict.tasks[0].baseline, verdict.tasks[0].candidate) == (1.0, None)


def test_fewer_items_than_the_suite_asks_for_never_pass(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=0, won=0, items=299), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "answered 299 of 300 items" in verdict.summary


def test_a_score_without_its_samples_never_passes(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    bare = replace(candidate, samples={"add": candidate.samples["add"][:10]})
    verdict = judge(suite(), baseline, bare, verified=True)
    assert "has 10 samples behind a score of 300 items" in verdict.summary
    assert verdict.decision is Decision.INCONCLUSIVE


def test_a_score_that_is_not_its_samples_mean_never_passes(
    suite: MakeSuite, arms: MakeArms
) -> None:
    baseline, candidate = arms(lost=3, won=0)
    verdict = judge(suite(), baseline, rescored(candidate, value=1.0), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "score 1.0000, but its samples' mean is 0.9900" in verdict.summary


def test_prompts_that_lost_tokens_never_pass(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    verdict = judge(suite(), rescored(baseline, num_prompts_cut=2), candidate, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)


def test_a_failed_request_is_unknown_and_not_wrong(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    first, *rest = candidate.samples["add"]
    failed = replace(first, finish="error", value=0.0)
    candidate = replace(candidate, samples={"add": (failed, *rest)})
    verdict = judge(suite(), baseline, rescored(candidate, num_errors=1), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.REQUEST_ERRORS)
    assert verdict.tasks[0].num_lost == 0
    assert verdict.tasks[0].num_items == 299


def test_an_outage_is_no_proof_of_a_loss(
    suite: MakeSuite, arm: MakeArm, samples: MakeSamples
) -> None:
    down = samples("add", [0.0] * 300, finish="error")
    verdict = judge(
        suite(),
        arm("baseline", {"add": samples("add", [1.0] * 300)}),
        arm("candidate", {"add": down}),
        verified=True,
    )
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.REQUEST_ERRORS)


def test_a_catastrophe_is_no_go_even_with_some_requests_failed(
    suite: MakeSuite, arm: MakeArm, samples: MakeSamples
) -> None:
    answered = samples("add", [0.0] * 300)
    mixed = tuple(replace(s, finish="error") if s.doc_id < 20 else s for s in answered)
    verdict = judge(
        suite(),
        arm("baseline", {"add": samples("add", [1.0] * 300)}),
        arm("candidate", {"add": mixed}),
        verified=True,
    )
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.TASK_INFERIOR)


def test_a_catastrophe_is_no_go_even_if_every_answer_is_cut_off_and_nothing_was_verified(
    suite: MakeSuite, arm: MakeArm, samples: MakeSamples
) -> None:
    verdict = judge(
        suite(),
        arm("baseline", {"add": samples("add", [1.0] * 300)}),
        arm("candidate", {"add": samples("add", [0.0] * 300, finish="length")}),
        verified=False,
    )
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes == (
        ReasonCode.TASK_INFERIOR,
        ReasonCode.VERIFY_SKIPPED,
    )


@pytest.mark.parametrize("which", ["baseline", "candidate"])
def test_answers_cut_off_in_either_arm_never_pass(
    suite: MakeSuite, arms: MakeArms, which: str
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    if which == "baseline":
        baseline = rescored(baseline, num_truncated=7)
    else:
        candidate = rescored(candidate, num_truncated=7)
    verdict = judge(suite(), baseline, candidate, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.TRUNCATED_ANSWERS)
    assert which in verdict.summary
    tolerated = judge(suite(max_truncated=0.03), baseline, candidate, verified=True)
    assert tolerated.decision is Decision.GO


def test_a_baseline_that_guesses_shows_nothing(
    suite: MakeSuite, task: MakeTask, arm: MakeArm, samples: MakeSamples
) -> None:
    guessed = [1.0, 0.0, 0.0, 0.0] * 75
    both = (
        arm("baseline", {"add": samples("add", guessed)}),
        arm("candidate", {"add": samples("add", guessed)}),
    )
    verdict = judge(suite(task(chance=0.25)), *both, verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.BASELINE_TOO_WEAK)
    assert judge(suite(task(chance=0.05)), *both, verified=True).decision is Decision.GO


def test_a_baseline_so_low_that_salad_would_be_within_the_margin_shows_nothing(
    suite: MakeSuite, arm: MakeArm, samples: MakeSamples
) -> None:
    verdict = judge(
        suite(),
        arm("baseline", {"add": samples("add", [1.0] * 6 + [0.0] * 294)}),
        arm("candidate", {"add": samples("add", [0.0] * 300)}),
        verified=True,
    )
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.BASELINE_TOO_WEAK)


def test_a_run_that_was_not_verified_never_passes(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=0, won=0), verified=False)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.VERIFY_SKIPPED)


def test_arithmetic_that_was_declared_and_not_computed_never_passes(
    suite: MakeSuite, arms: MakeArms, deployment: MakeDeployment
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    weight_only = deployment(exercised=("weights:nvfp4",), device="NVIDIA H200 (sm_90)")
    verdict = judge(suite(), baseline, redeployed(candidate, weight_only), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.NUMERICS_NOT_EXERCISED)
    assert "declared but not computed: inputs:nvfp4" in verdict.scope
    assert "the baseline was answered on cpu" in verdict.scope


def test_a_suite_without_a_critical_task_never_passes(
    suite: MakeSuite, task: MakeTask, arms: MakeArms
) -> None:
    advisory = suite(task(tier=Tier.ADVISORY))
    verdict = judge(advisory, *arms(lost=0, won=0), verified=True)
    assert leading(verdict) == (Decision.INCONCLUSIVE, ReasonCode.SCORE_MISSING)
    assert "no critical task" in verdict.summary


def two_tasks(arm: MakeArm, samples: MakeSamples, *, lost: tuple[int, int]) -> tuple[Arm, Arm]:
    names = ("add", "sort")
    right = {name: samples(name, [1.0] * 300) for name in names}
    answered = {
        name: samples(name, [0.0] * n + [1.0] * (300 - n))
        for name, n in zip(names, lost, strict=True)
    }
    return arm("baseline", right), arm("candidate", answered)


def test_no_go_wins_over_inconclusive_which_wins_over_go(
    suite: MakeSuite, task: MakeTask, arm: MakeArm, samples: MakeSamples
) -> None:
    both = suite(task(), task("sort"))
    decisions = {
        lost: judge(both, *two_tasks(arm, samples, lost=lost), verified=True)
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


def test_an_advisory_task_is_reported_and_does_not_gate(
    suite: MakeSuite, task: MakeTask, arm: MakeArm, samples: MakeSamples
) -> None:
    asked = suite(task(), task("sort", tier=Tier.ADVISORY))
    verdict = judge(asked, *two_tasks(arm, samples, lost=(0, 200)), verified=True)
    assert verdict.decision is Decision.GO
    assert verdict.tasks[1].decision is Decision.NO_GO


def test_flips_show_lost_items_first_and_every_task_in_turn(
    suite: MakeSuite, task: MakeTask, arm: MakeArm, samples: MakeSamples
) -> None:
    asked = suite(task(), task("sort"))
    verdict = judge(asked, *two_tasks(arm, samples, lost=(100, 3)), verified=True)
    assert len(verdict.flips) == 50
    assert [f.task for f in verdict.flips[:7]] == ["add", "sort"] * 3 + ["add"]
    assert all(f.lost and f.candidate == "wrong" for f in verdict.flips)


def test_won_items_follow_the_lost_ones(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=2, won=3), verified=True)
    assert [f.lost for f in verdict.flips] == [True, True, False, False, False]


def test_a_metric_that_is_not_right_or_wrong_is_refused(
    suite: MakeSuite, arm: MakeArm, samples: MakeSamples
) -> None:
    partial = samples("add", [0.5] * 300)
    with pytest.raises(SuiteError, match=r"item 0 scored 0\.5"):
        judge(
            suite(),
            arm("baseline", {"add": partial}),
            arm("candidate", {"add": partial}),
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
def test_arms_from_different_engines_are_not_compared(  # noqa: PLR0913, PLR0917  makers
    suite: MakeSuite,
    arms: MakeArms,
    deployment: MakeDeployment,
    field: str,
    value: str,
    named: str,
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    with pytest.raises(IncomparableError, match=f"differ in {named}: .*'{value}'"):
        judge(suite(), baseline, redeployed(candidate, deployment(**{field: value})), verified=True)


def test_different_kernels_are_compared(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    shown = replace(baseline.scorecard.deployment, kernels={"linear": "native"})
    native = redeployed(baseline, shown)
    assert judge(suite(), native, candidate, verified=True).decision is Decision.GO


def test_scores_of_a_baseline_are_no_candidate(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    with pytest.raises(IncomparableError, match="are those of a baseline"):
        judge(suite(), candidate, baseline, verified=True)


def test_a_quantized_model_is_no_baseline(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    quantized = replace(baseline.scorecard.deployment, declared=("weights:fp8",))
    with pytest.raises(IncomparableError, match=r"is quantized \(weights:fp8\)"):
        judge(suite(), redeployed(baseline, quantized), candidate, verified=True)


def test_a_model_is_not_compared_with_itself(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    digest = candidate.scorecard.deployment.checkpoint_digest
    same = replace(baseline.scorecard.deployment, checkpoint_digest=digest)
    with pytest.raises(IncomparableError, match="both arms are the same model"):
        judge(suite(), redeployed(baseline, same), candidate, verified=True)


def test_the_baseline_is_named_with_its_digest(suite: MakeSuite, arms: MakeArms) -> None:
    verdict = judge(suite(), *arms(lost=0, won=0), verified=True)
    assert (verdict.baseline, verdict.baseline_digest) == ("/models/x", "b" * 64)
    assert "the unquantized /models/x, bbbbbbbbbbbb" in verdict.scope[0]


def test_a_changed_suite_is_not_compared(suite: MakeSuite, arms: MakeArms) -> None:
    with pytest.raises(IncomparableError, match="the baseline was scored with another suite"):
        judge(suite(digest="e" * 64), *arms(lost=0, won=0), verified=True)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lm_eval_version": "0.4.12"}, "lm-eval's version"),
        ({"generation": {"add": '{"max_gen_toks": 32}'}}, "max_gen_toks of task 'add'"),
    ],
)
def test_different_ways_of_asking_are_not_compared(
    suite: MakeSuite, arms: MakeArms, changes: dict[str, object], named: str
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    changed = replace(candidate.scorecard, **changes)  # type: ignore[arg-type]  # varies
    with pytest.raises(IncomparableError, match=named):
        judge(suite(), baseline, replace(candidate, scorecard=changed), verified=True)


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
def test_each_argument_that_shapes_answers_is_named_when_it_differs(
    suite: MakeSuite, arms: MakeArms, argument: str
) -> None:
    arguments = {name: values[0] for name, values in ARGUMENTS.items()}
    left, right = ARGUMENTS[argument]
    baseline, candidate = (
        replace(arm, scorecard=replace(arm.scorecard, generation={"add": json.dumps(said)}))
        for arm, said in zip(
            arms(lost=0, won=0), (arguments, arguments | {argument: right}), strict=True
        )
    )
    both = re.escape(f"'{json.dumps(left)}', candidate '{json.dumps(right)}'")
    with pytest.raises(
        IncomparableError, match=f"differ in {argument} of task 'add': baseline {both}"
    ):
        judge(suite(), baseline, candidate, verified=True)


def test_an_argument_that_one_arm_does_not_record_is_a_difference(
    suite: MakeSuite, arms: MakeArms
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    said = {"add": '{"max_gen_toks": 16, "seed": 1}'}
    changed = replace(candidate, scorecard=replace(candidate.scorecard, generation=said))
    with pytest.raises(IncomparableError, match="differ in seed of task 'add': baseline 'null'"):
        judge(suite(), baseline, changed, verified=True)


@pytest.mark.parametrize("field", ["doc_id", "doc_hash", "prompt_hash", "target_hash", "cluster"])
def test_different_items_are_not_compared(suite: MakeSuite, arms: MakeArms, field: str) -> None:
    baseline, candidate = arms(lost=0, won=0)
    items = list(candidate.samples["add"])
    other = {field: 999 if field == "doc_id" else "other"}
    items[7] = replace(items[7], **other)  # type: ignore[arg-type]  # the field varies
    changed = replace(candidate, samples={"add": tuple(items)})
    with pytest.raises(IncomparableError, match=f"task 'add', item 7: {field} differs"):
        judge(suite(), baseline, changed, verified=True)


def test_items_in_another_order_are_not_compared(suite: MakeSuite, arms: MakeArms) -> None:
    baseline, candidate = arms(lost=0, won=0)
    turned = replace(candidate, samples={"add": candidate.samples["add"][::-1]})
    with pytest.raises(IncomparableError, match="item 0: doc_id differs"):
        judge(suite(), baseline, turned, verified=True)


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
    suite: MakeSuite, arms: MakeArms, deployment: MakeDeployment, reason: ReasonCode
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    shown = deployment(findings=(finding(Severity.ERROR, reason),))
    verdict = judge(suite(), baseline, redeployed(candidate, shown), verified=False)
    assert leading(verdict) == (Decision.NO_GO, reason)
    assert "192 parameters were filled by no tensor" in verdict.summary


def test_a_warning_of_the_deployment_is_reported_and_decides_nothing(
    suite: MakeSuite, arms: MakeArms, deployment: MakeDeployment
) -> None:
    baseline, candidate = arms(lost=4, won=3)
    shown = deployment(findings=(finding(Severity.WARNING, ReasonCode.SCALE_MISMATCH),))
    verdict = judge(suite(), baseline, redeployed(candidate, shown), verified=True)
    assert leading(verdict) == (Decision.GO, ReasonCode.NON_INFERIOR)
    assert any("warning parameter-not-filled" in line for line in verdict.scope)


def test_a_proven_fault_outranks_an_inferior_task(
    suite: MakeSuite, arms: MakeArms, deployment: MakeDeployment
) -> None:
    baseline, candidate = arms(lost=60, won=3)
    shown = deployment(findings=(finding(Severity.ERROR, ReasonCode.SCALE_MISSING),))
    verdict = judge(suite(), baseline, redeployed(candidate, shown), verified=True)
    assert leading(verdict) == (Decision.NO_GO, ReasonCode.SCALE_MISSING)
    assert ReasonCode.TASK_INFERIOR in verdict.reason_codes


@pytest.mark.parametrize("asked", ["", "[]", "{", "[" * 5000, '{"a": NaN}'])
def test_arguments_that_are_none_are_not_compared(
    suite: MakeSuite, arms: MakeArms, asked: str
) -> None:
    baseline, candidate = arms(lost=0, won=0)
    card = replace(candidate.scorecard, generation={"add": asked})
    with pytest.raises(IncomparableError, match="what the candidate was asked in 'add'"):
        judge(suite(), baseline, replace(candidate, scorecard=card), verified=True)
