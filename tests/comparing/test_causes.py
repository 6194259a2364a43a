"""The list of what could have caused a difference: short, in order, and nothing that could not."""

import dataclasses
from dataclasses import replace

import torch

from harness.artifacts import Part, Rule
from harness.comparing import compare_runs
from tests.comparing.conftest import RULES, SCALE, TENSORS, Made, Make, failure
from tests.nouns import recipe_of

LOST = frozenset(range(5))
MOVED = {**TENSORS, SCALE: torch.tensor(0.25)}


def parts(make: Make, other: Made, first: Made | None = None) -> list[Part]:
    found = compare_runs(make("a", first or Made()), make("b", other))
    return [cause.part for cause in found.causes]


def with_rules(*rules: Rule) -> Made:
    made = Made()
    made.recipe = replace(made.recipe, rules=rules)
    return made


def test_two_runs_alike_have_no_cause(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made()))
    assert found.causes == ()
    assert "nothing came out differently" in found.outcome


def test_a_rule_is_the_cause_and_not_the_checkpoint_that_it_made(make: Make) -> None:
    made = with_rules(*RULES[:2], Rule(quantizer="*lm_head*", format="nvfp4"))
    made.plan, made.tensors, made.wrong = "other plan", MOVED, LOST
    found = compare_runs(make("a", Made()), make("b", made))
    assert [c.part for c in found.causes] == [Part.RECIPE]
    assert found.causes[0].through == (Part.PLAN, Part.CHECKPOINT, Part.ANSWERS)
    (rule,) = found.causes[0].differences
    assert (rule.what, rule.a, rule.b) == ("rule 3, *lm_head*", "none", "nvfp4")


def test_a_rule_that_changed_no_plan_caused_nothing(make: Make) -> None:
    made = with_rules(*RULES, Rule(quantizer="*never_there*", format="none"))
    made.wrong = LOST
    made.deployment = replace(made.deployment, version="0.33.0")
    found = compare_runs(make("a", Made()), make("b", made))
    assert [c.part for c in found.causes] == [Part.ENGINE]
    assert Part.RECIPE in found.without_effect


def test_another_checkpoint_by_the_same_recipe_is_the_cause_itself(make: Make) -> None:
    assert parts(make, Made(tensors=MOVED, wrong=LOST)) == [Part.CHECKPOINT]


def test_a_checkpoint_comes_before_an_engine(make: Make) -> None:
    made = Made(tensors=MOVED, wrong=LOST)
    made.deployment = replace(made.deployment, version="0.33.0")
    assert parts(make, made) == [Part.CHECKPOINT, Part.ENGINE]


def test_kernels_that_follow_from_the_hardware_are_no_cause_of_their_own(make: Make) -> None:
    made = Made(wrong=LOST)
    made.deployment = replace(
        made.deployment, device="NVIDIA B200 (sm_100)", kernels={"linear": "FlashInfer"}
    )
    found = compare_runs(make("a", Made()), make("b", made))
    assert [c.part for c in found.causes] == [Part.HARDWARE]
    assert Part.KERNELS in found.causes[0].through


def test_a_server_argument_is_named_and_a_port_is_none(make: Make) -> None:
    made = Made(wrong=LOST)
    arguments = ("--max-model-len", "512", "--port", "9999")
    made.deployment = replace(made.deployment, arguments=arguments)
    found = compare_runs(make("a", Made()), make("b", made))
    (cause,) = found.causes
    assert [(d.what, d.a, d.b) for d in cause.differences] == [("--max-model-len", "256", "512")]


def test_a_margin_explains_a_verdict_and_no_answer(make: Make) -> None:
    made = Made()
    (task,) = made.recipe.suite.tasks
    suite = replace(made.recipe.suite, tasks=(replace(task, margin=0.001),))
    made.recipe = replace(made.recipe, suite=suite)
    assert parts(make, made) == [Part.JUDGING]


def test_answers_that_differ_for_no_recorded_reason_are_said_to(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made(wrong=LOST)))
    assert found.causes == ()
    assert "lost 5" in found.outcome


def test_a_run_that_failed_before_scoring_is_explained_by_what_differs(make: Make) -> None:
    made = Made(tensors=MOVED, failure=failure())
    found = compare_runs(make("a", Made()), make("b", made))
    assert "B failed in serve (engine-failed)" in found.outcome
    assert [c.part for c in found.causes] == [Part.CHECKPOINT]
    assert Part.ANSWERS in found.unknown


def test_what_a_run_does_not_record_is_no_cause(make: Make) -> None:
    made = Made(wrong=LOST)
    found = compare_runs(make("a", Made()), make("b", made))
    assert Part.STATS in found.unknown
    assert Part.STATS not in {cause.part for cause in found.causes}


def test_a_check_that_only_one_run_failed_is_said_by_name(make: Make) -> None:
    found = compare_runs(make("a", Made()), make("b", Made(failed_check="scales", tensors=MOVED)))
    assert "scales" in [d.what for d in found.differences if d.part is Part.CHECKS]


def test_calibration_that_changed_is_said_field_by_field(make: Make) -> None:
    made = Made(tensors=MOVED, wrong=LOST)
    spec = dataclasses.replace(made.recipe.calibration, size=4)
    made.recipe = recipe_of(spec, rules=RULES, suite=made.recipe.suite)
    found = compare_runs(make("a", Made()), make("b", made))
    assert ("settings.size", "8", "4") in [
        (d.what, d.a, d.b) for cause in found.causes for d in cause.differences
    ]
