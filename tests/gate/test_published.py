"""A baseline that scores otherwise than is published of it was asked in another way."""

import json
import math
import random
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    Decision,
    Protocol,
    Published,
    Scale,
    Suite,
    TaskSpec,
    Tier,
    Verdict,
)
from harness.errors import ReasonCode
from harness.gate import Subject, judge, protocol_note
from harness.gate.forms import bounds_of_own
from tests.gate.arms import answers, arms_of, make_arm
from tests.gate.test_perplexity import arms as perplexities
from tests.gate.test_perplexity import documents, rising
from tests.nouns import suite_of, task_spec

MODEL = "Qwen/Qwen3-8B"
CARD = "https://example.org/card"
ASKED = json.dumps({"output_type": "generate_until", "generation": {"max_gen_toks": 16}})


def published(value: float = 0.99, **changes: object) -> Published:
    made = Published(model=MODEL, value=value, tolerance=0.01, source=CARD)
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def task(one: Published | None, **changes: object) -> TaskSpec:
    return task_spec(published=one, **changes)


def renamed(arm: Arm, model: str) -> Arm:
    served = replace(arm.scorecard.deployment, model=model)
    card = replace(arm.scorecard, deployment=served, generation={"add": ASKED})
    return replace(arm, scorecard=card)


def judged(
    *tasks: TaskSpec,
    baseline: str = MODEL,
    folder: str = "/somewhere/else",
    also: tuple[str, ...] = (),
    **suite: object,
) -> Verdict:
    """Judge a candidate that is as good as its baseline, which answers 297 of 300 items."""
    both = arms_of(lost=0, won=3)
    left, right = renamed(both[0], folder), renamed(both[1], "/quantized")
    subject = Subject("x", "nvfp4", baseline, also)
    asked: Suite = suite_of(*tasks, **suite)
    return judge(asked, left, right, verified=True, subject=subject)


def scope_of(verdict: Verdict) -> str:
    return next(line for line in verdict.scope if CARD in line)


def test_a_baseline_that_scores_as_is_published_is_said_to() -> None:
    verdict = judged(task(published(0.985)))
    assert verdict.decision is Decision.GO
    assert "the baseline scores 99.0%" in scope_of(verdict)
    assert f"published of {MODEL} is 98.5% +- 1.0% ({CARD})" in scope_of(verdict)


@pytest.mark.parametrize("value", [0.8, 1.0])
def test_its_sampling_is_allowed_for_and_nothing_more(value: float) -> None:
    one = published(value, tolerance=0.0)
    verdict = judged(task(one))
    found = verdict.tasks[0].plausibility
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert (found.low <= value <= found.high) == (found.is_plausible is True)
    at_its_end = replace(one, value=found.low)
    assert judged(task(at_its_end)).decision is Decision.GO


@pytest.mark.parametrize("value", [0.9, 0.2])
@pytest.mark.parametrize("tier", list(Tier))
def test_a_baseline_unlike_what_is_published_is_inconclusive(value: float, tier: Tier) -> None:
    tasks = task(published(value), tier=tier), task_spec("more", tier=Tier.CRITICAL)
    verdict = judged(*(tasks[:1] if tier is Tier.CRITICAL else (tasks[0],)))
    assert verdict.decision is Decision.INCONCLUSIVE
    assert ReasonCode.BASELINE_UNLIKE_PUBLISHED in verdict.reason_codes
    assert verdict.tasks[0].plausibility is not None
    assert verdict.tasks[0].plausibility.is_plausible is False


def test_the_verdict_names_every_difference_of_the_protocols() -> None:
    protocol = Protocol(
        chat_template=True,
        num_fewshot=8,
        thinking=True,
        thinking_budget=1000,
        max_gen_toks=512,
        temperature=0.6,
        repeats=16,
        filter="none",
    )
    verdict = judged(task(published(0.8, protocol=protocol)))
    for words in (
        "chat template: yes there, no here",
        "worked examples: 8 there, 0 here",
        "thinking: yes there, no here",
        "tokens for thoughts: 1000 there, 0 here",
        "tokens of an answer: 512 there, 16 here",
        "temperature: 0.6 there, 0 here",
        "answers to each item: 16 there, 1 here",
    ):
        assert words in verdict.summary
    assert "filter" not in verdict.summary
    assert "top_p" not in verdict.summary


def test_where_the_protocols_agree_that_is_said() -> None:
    verdict = judged(task(published(0.8, protocol=Protocol(num_fewshot=0))))
    assert "as far as it is told, in nothing" in verdict.summary


def test_a_budget_with_thoughts_is_compared_with_both_together() -> None:
    together = task(published(0.8, protocol=Protocol(max_gen_toks=116)))
    apart = task(published(0.8, protocol=Protocol(max_gen_toks=16, thinking_budget=100)))
    for one in (together, apart):
        for own, of_suite in ((None, 100), (100, 7)):
            asked = replace(one, thinking_budget=own)
            verdict = judged(asked, thinking=True, thinking_budget=of_suite)
            assert "tokens of an answer" not in verdict.summary
            assert "tokens for thoughts" not in verdict.summary


@pytest.mark.parametrize(
    ("baseline", "folder"),
    [
        (MODEL, "/x"),
        ("qwen/qwen3-8b", "/x"),
        ("/models/Qwen3-8B", "/x"),
        ("/models/Qwen/Qwen3-8B/", "/x"),
        ("shared.baseline", "/models/Qwen3-8B"),
        ("x", "/root/.cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/abc"),
    ],
)
def test_the_model_is_known_by_its_name(baseline: str, folder: str) -> None:
    verdict = judged(task(published(0.8)), baseline=baseline, folder=folder)
    assert verdict.reason_codes == (ReasonCode.BASELINE_UNLIKE_PUBLISHED,)


@pytest.mark.parametrize(
    ("baseline", "folder"),
    [
        ("unsloth/Qwen3-8B", "/x"),
        ("Qwen/Qwen3-8B-FP8", "/models/Qwen3-8B-FP8"),
        ("/models/my-qwen", "/models/my-qwen"),
        ("x", "/hub/models--unsloth--Qwen3-8B/snapshots/Qwen3-8B"),
    ],
)
def test_another_model_is_not_compared_and_that_is_said(baseline: str, folder: str) -> None:
    verdict = judged(task(published(0.8)), baseline=baseline, folder=folder)
    assert verdict.decision is Decision.GO
    assert f"not compared, for the baseline is '{baseline}'" in scope_of(verdict)


def test_a_digest_decides_over_any_name() -> None:
    served = "b" * 64
    right, wrong = published(0.8, digest=served[:12]), published(0.8, digest="a" * 12)
    assert judged(task(right), baseline="/models/mine").decision is Decision.INCONCLUSIVE
    assert judged(task(wrong), baseline=MODEL).decision is Decision.GO


def test_what_its_configuration_calls_it_is_no_proof() -> None:
    verdict = judged(task(published(0.8)), baseline="/models/mine", also=(MODEL,))
    assert verdict.decision is Decision.GO
    assert f"its configuration names {MODEL}" in scope_of(verdict)


def test_a_no_go_stays_one() -> None:
    both = arms_of(lost=60, won=0)
    subject = Subject("x", "nvfp4", MODEL)
    verdict = judge(suite_of(task(published(0.5))), *both, verified=True, subject=subject)
    assert verdict.decision is Decision.NO_GO
    assert verdict.reason_codes[1] is ReasonCode.BASELINE_UNLIKE_PUBLISHED


def unknown_of(num_items: int, value: float, finish: str) -> Verdict:
    """Judge where so many of 300 answers of the baseline to an advisory task are unknown."""
    right = answers("add", [1.0] * 300)
    unknown = tuple(replace(s, finish=finish, value=0.0) for s in right[:num_items])
    samples = {"add": (*unknown, *right[num_items:]), "more": answers("more", [1.0] * 300)}
    both = make_arm("baseline", samples), make_arm("candidate", {**samples, "add": right})
    suite = suite_of(task(published(value), tier=Tier.ADVISORY), task_spec("more"))
    return judge(suite, *both, verified=True, subject=Subject("x", "nvfp4", MODEL))


@pytest.mark.parametrize("finish", ["error", "timeout"])
@pytest.mark.parametrize(
    ("num_items", "value", "reason"),
    [
        (1, 0.99, ReasonCode.NON_INFERIOR),
        (1, 0.5, ReasonCode.BASELINE_UNLIKE_PUBLISHED),
        (150, 0.5, ReasonCode.NON_INFERIOR),
        (300, 0.5, ReasonCode.NOT_ENOUGH_EVIDENCE),
    ],
)
def test_unknown_answers_may_be_any_but_not_all_of_them(
    finish: str, num_items: int, value: float, reason: ReasonCode
) -> None:
    verdict = unknown_of(num_items, value, finish)
    assert verdict.reason_codes[0] is reason
    assert "unknown" in scope_of(verdict)


@pytest.mark.parametrize(("value", "is_plausible"), [(7.5, True), (9.0, False), (6.0, False)])
def test_a_perplexity_is_compared_in_its_own_unit(value: float, *, is_plausible: bool) -> None:
    one = published(value, tolerance=0.1)
    subject = Subject("x", "nvfp4", MODEL)
    verdict = judge(
        suite_of(rising(published=one)), *perplexities(1.0), verified=True, subject=subject
    )
    found = verdict.tasks[0].plausibility
    assert found is not None
    assert found.is_plausible is is_plausible
    assert "%" not in found.message
    assert verdict.tasks[0].scale is Scale.PERPLEXITY
    assert found.low is not None
    assert found.low < 7.4954 < (found.high or math.inf)


def in_groups() -> tuple[Arm, Arm]:
    """Return two equal arms of 30 groups of ten items, of which 27 are right as a whole."""
    given = answers("add", [1.0] * 270 + [0.0] * 30)
    samples = {"add": tuple(replace(s, cluster=str(s.doc_id // 10)) for s in given)}
    return make_arm("baseline", samples), make_arm("candidate", samples)


@pytest.mark.parametrize(("clusters", "is_plausible"), [({"cluster": "x"}, True), ({}, False)])
def test_items_in_groups_say_less_of_the_baselines_score(
    clusters: dict[str, object], *, is_plausible: bool
) -> None:
    asked = task(published(0.84, tolerance=0.0), clusters=30, **clusters)
    subject = Subject("x", "nvfp4", MODEL)
    verdict = judge(suite_of(asked), *in_groups(), verified=True, subject=subject)
    found = verdict.tasks[0].plausibility
    assert found is not None
    assert found.is_plausible is is_plausible


@pytest.mark.parametrize(("clusters", "reason"), [({"cluster": "x"}, "weak"), ({}, "good")])
def test_items_in_groups_show_less_that_a_baseline_does_not_guess(
    clusters: dict[str, object], reason: str
) -> None:
    asked = task(None, clusters=30, chance=0.78, **clusters)
    verdict = judge(suite_of(asked), *in_groups(), verified=True)
    weak = ReasonCode.BASELINE_TOO_WEAK in verdict.reason_codes
    assert weak is (reason == "weak")


def test_the_documents_of_a_cluster_are_one_text_of_the_baseline() -> None:
    draws = random.Random(1)  # noqa: S311  documents, no secrets
    values = [-200.0 + draws.gauss(0, 10) for _ in range(20)]
    alone = documents(values, [100.0] * 20)
    copied = tuple(replace(s, doc_id=20 * n + s.doc_id) for n in range(5) for s in alone)
    grouped = tuple(replace(s, cluster=str(s.doc_id % 20)) for s in copied)
    one = bounds_of_own(rising(), alone, confidence=0.95)
    five = bounds_of_own(rising(cluster="x", clusters=20), grouped, confidence=0.95)
    assert five == pytest.approx(one)


@pytest.mark.parametrize(("value", "is_plausible"), [(0.1, True), (5.0, False)])
def test_a_value_of_a_range_is_compared_in_its_own_unit(
    value: float, *, is_plausible: bool
) -> None:
    """Misses, of 10 at worst: the baseline's shares of 0.99 are 0.1 misses."""
    asked = task(published(value, tolerance=0.05), value_range=(10.0, 0.0), spread=0.5)
    found = judged(asked).tasks[0].plausibility
    assert found is not None
    assert found.is_plausible is is_plausible
    assert "the baseline scores 0.1," in found.message


def test_a_plan_names_the_differences_before_anything_runs() -> None:
    one = published(protocol=Protocol(chat_template=True, max_gen_toks=512))
    asked = task(one)
    suite = suite_of(asked)
    note = protocol_note(suite, asked, MODEL, 256)
    assert note.startswith(f"{CARD} asked otherwise: chat template: yes there, no here; tokens of")
    assert "512 there, 256 here" in note
    assert protocol_note(suite, task(published()), MODEL, None) == ""
    assert "not known to be" in protocol_note(suite, asked, "another/model", None)
    assert protocol_note(suite, task(None), MODEL, None) == ""


def test_answers_to_items_that_were_asked_once_are_items() -> None:
    """As the judge has it, whatever numbers the items of a group's members have."""
    given = answers("add", [1.0] * 90 + [0.0] * 10)
    alike = tuple(replace(one, doc_id=one.doc_id % 10) for one in given)
    assert bounds_of_own(task_spec(), alike, confidence=0.95) == bounds_of_own(
        task_spec(), given, confidence=0.95
    )
