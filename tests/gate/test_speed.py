"""Speeds are compared where they can be, and never else."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from harness.artifacts import (
    Arm,
    ArmTimes,
    Band,
    Decision,
    EarlyEnd,
    Pace,
    PaceBlock,
    SpeedVerdict,
    Standing,
    Suite,
    Tier,
    Verdict,
    WhyEnded,
)
from harness.errors import ReasonCode
from harness.gate import judge
from harness.gate.speed import compare_speeds
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of, task_spec

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
    few = pace(50.0).blocks[:3], pace(80.0).blocks[:3]
    before, after = (
        arm(name, pace(1.0, blocks=blocks, began=began))
        for name, blocks, began in zip(
            ("baseline", "candidate"), few, (MORNING, LATER), strict=True
        )
    )
    verdict, speed = judged(before, after)
    assert (speed.num_blocks, speed.standing) == (3, Standing.UNCLEAR)
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
    ({"blocks": pace(80.0).blocks[:9]}, {}, "different numbers of requests were timed"),
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


def test_arms_that_were_asked_in_another_order_are_not_compared() -> None:
    before, after = both(80.0)
    looked = replace(after.scorecard, looks={"add": (40, 80)})
    end = EarlyEnd(task="add", why=WhyEnded.INFERIOR, items=(0,), share=0.1, seconds=1.0)
    ended = replace(after.scorecard, ended=end)
    for card in (looked, ended):
        speed = compare_speeds(suite_of(), before.scorecard, card)
        assert speed is not None
        assert "asked in parts" in speed.why_not


def test_a_task_that_only_one_arm_was_timed_on_is_not_left_out() -> None:
    """Every answer of the candidate to `hard` came too late, so that it has no pace there."""
    before, after = both(80.0)
    times = before.scorecard.times
    assert times is not None
    more = replace(times, paces={**times.paces, "hard": pace(50.0)})
    card = replace(before.scorecard, times=more)
    suite = suite_of(task_spec(), task_spec("hard", tier=Tier.ADVISORY))
    speed = compare_speeds(suite, card, after.scorecard)
    assert speed is not None
    assert "no times of the candidate's answers to hard" in speed.why_not


def test_answers_that_came_too_late_make_no_candidate_faster() -> None:
    """Its 80 slowest ones of 400 were not timed: each of its blocks holds 16 and not 20."""

    def timed(of_each: int, speed: float) -> Pace:
        blocks = pace(speed).blocks
        return pace(speed, blocks=tuple(replace(one, num_answers=of_each) for one in blocks))

    before, after = arm("baseline", timed(20, 50.0)), arm("candidate", timed(16, 80.0))
    _, speed = judged(before, after)
    assert "different numbers of requests were timed" in speed.why_not
    later = replace(timed(20, 80.0), began=LATER)
    assert judged(before, arm("candidate", later))[1].why_not == ""
    older = pace(80.0, began=LATER)
    assert judged(before, arm("candidate", older))[1].why_not == ""


def test_several_metrics_of_one_task_are_timed_once() -> None:
    before, after = both(80.0)
    times = before.scorecard.times
    assert times is not None
    more = replace(times, paces={**times.paces, "again": pace(50.0)})
    card = replace(before.scorecard, times=more)
    suite = suite_of(task_spec(), task_spec("again", task="add"))
    speed = compare_speeds(suite, card, after.scorecard)
    assert speed is not None
    assert speed.why_not == ""


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
