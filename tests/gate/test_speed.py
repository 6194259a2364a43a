"""Speeds are compared where they can be, and never else."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    ArmTimes,
    Band,
    Decision,
    Pace,
    PaceBlock,
    SpeedVerdict,
    Standing,
    Suite,
    Tier,
    Verdict,
)
from harness.errors import ReasonCode
from harness.gate import judge
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of

ITEMS = 300
CRITICAL = Band(band=0.05, tier=Tier.CRITICAL)
MORNING, LATER = "2026-11-29T08:00:00+00:00", "2026-11-29T09:00:00+00:00"
NOISE = (1.0, 1.02, 0.97, 1.01, 0.99, 1.03, 0.98, 1.0, 1.02, 0.99)


def pace(speed: float, **changes: object) -> Pace:
    made = Pace(
        began=MORNING,
        seconds=600.0,
        machine="m" * 64,
        alone=True,
        num_at_once=64,
        blocks=tuple(PaceBlock(num_tokens=1000, seconds=1000 / (speed * n)) for n in NOISE),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


def arm(name: str, made: Pace, **served: object) -> Arm:
    whole = make_arm(name, {"add": answers("add", [1.0] * ITEMS)})
    card = whole.scorecard
    kernels = {"linear": "MarlinNvFp4LinearKernel"}
    how: dict[str, object] = {"engine": "vllm", "load_s": 30.0, "kernels": kernels} | served
    deployment = replace(card.deployment, **how)  # type: ignore[arg-type]  # the fields vary by test
    times = ArmTimes(paces={"add": made}, first_token_s=0.1, memory_bytes=1 << 30)
    return Arm(scorecard=replace(card, deployment=deployment, times=times), samples=whole.samples)


def judged(baseline: Arm, candidate: Arm, band: Band = CRITICAL) -> tuple[Verdict, SpeedVerdict]:
    suite: Suite = suite_of(speed=band)
    verdict = judge(suite, baseline, candidate, verified=True)
    assert verdict.speed is not None
    return verdict, verdict.speed


def both(
    speed: float,
    *,
    theirs: dict[str, object] | None = None,
    served: dict[str, object] | None = None,
) -> tuple[Arm, Arm]:
    """A baseline of 50 tokens a second, and a candidate an hour later."""
    after = {"began": LATER} | (theirs or {})
    candidate = arm("candidate", pace(speed, **after), **(served or {}))
    return arm("baseline", pace(50.0)), candidate


def test_a_faster_candidate_says_what_it_buys() -> None:
    verdict, speed = judged(*both(80.0))
    assert verdict.decision is Decision.GO
    assert speed.ratio == pytest.approx(1.6)
    assert speed.standing is Standing.WITHIN
    assert "1.6 times the tokens a second" in verdict.summary
    assert (speed.first_token_baseline_s, speed.load_candidate_s) == (0.1, 30.0)
    assert speed.memory_candidate == 1 << 30


def test_a_slower_candidate_is_no_go_where_speed_is_critical_and_warned_of_else() -> None:
    verdict, _ = judged(*both(30.0))
    assert verdict.reason_codes[0] is ReasonCode.ANSWERS_SLOWER
    assert verdict.decision is Decision.NO_GO
    verdict, _ = judged(*both(30.0), Band())
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR, ReasonCode.ANSWERS_SLOWER)


def test_few_blocks_decide_nothing() -> None:
    few: dict[str, object] = {"blocks": pace(80.0).blocks[:3]}
    verdict, speed = judged(*both(80.0, theirs=few))
    assert speed.standing is Standing.UNCLEAR
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)


ELSEWHERE: Sequence[tuple[dict[str, object], dict[str, object], str]] = (
    ({"machine": "x" * 64}, {}, "different machines"),
    ({}, {"device": "NVIDIA H200 (sm_90)"}, "measured on cpu and the candidate on NVIDIA H200"),
    ({}, {"tensor_parallel_size": 2}, "different numbers of GPUs"),
    ({"num_at_once": 8}, {}, "different numbers of requests at once"),
    ({"alone": False}, {}, "at work on one machine at once"),
    ({"began": "2026-11-29T08:05:00+00:00"}, {}, "at work on one machine at once"),
    ({"began": "2026-12-01T08:00:00+00:00"}, {}, "more than a day apart"),
    ({}, {"address": "http://there"}, "somebody else runs the servers"),
)


@pytest.mark.parametrize(("theirs", "served", "why"), ELSEWHERE, ids=[e[2] for e in ELSEWHERE])
def test_speeds_that_cannot_be_compared_show_no_number(
    theirs: dict[str, object], served: dict[str, object], why: str
) -> None:
    verdict, speed = judged(*both(80.0, theirs=theirs, served=served))
    assert why in speed.why_not
    assert {speed.baseline, speed.candidate, speed.ratio, speed.memory_baseline} == {None}
    assert "tokens a second" not in verdict.buys
    assert verdict.reason_codes[0] is ReasonCode.NOT_ENOUGH_EVIDENCE
    verdict, _ = judged(*both(80.0, theirs=theirs, served=served), Band())
    assert verdict.decision is Decision.GO


@pytest.mark.parametrize(
    "served",
    [{"engine": "reference"}, {"kernels": {"linear": "CpuEmulationNvFp4LinearKernel"}}],
    ids=["the reference engine", "a kernel that emulates"],
)
def test_the_speed_of_emulated_arithmetic_is_no_claim(served: dict[str, object]) -> None:
    before = arm("baseline", pace(50.0), engine=served.get("engine", "vllm"))
    after = arm("candidate", pace(30.0, began=LATER), **served)
    verdict, speed = judged(before, after, Band())
    assert not speed.is_claim
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR,)
    assert "tokens a second" not in verdict.summary
    verdict, _ = judged(before, after)
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)


def test_scores_of_an_older_version_have_no_speed() -> None:
    old = make_arm("baseline", {"add": answers("add", [1.0] * ITEMS)})
    new = make_arm("candidate", {"add": answers("add", [1.0] * ITEMS)})
    assert judge(suite_of(), old, new, verified=True).speed is None
    strict = judge(suite_of(speed=CRITICAL), old, new, verified=True)
    assert strict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)
    assert "no times were taken of both arms' answers" in strict.summary
