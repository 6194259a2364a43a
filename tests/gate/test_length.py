"""Answers that grew or shrank are found whatever the scores say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import (
    Arm,
    Band,
    Decision,
    LengthVerdict,
    Sample,
    Standing,
    Suite,
    Tier,
    Verdict,
    load,
    to_json,
)
from harness.artifacts.store import digest_of_record
from harness.errors import ReasonCode
from harness.gate import judge
from tests.gate.arms import answers, make_arm
from tests.nouns import suite_of, task_spec

ITEMS = 300
CRITICAL = Band(band=0.05, tier=Tier.CRITICAL)
BEFORE = [20 + index % 30 for index in range(ITEMS)]


def arm(name: str, tokens: list[int], finish: dict[int, str] | None = None) -> Arm:
    """All answers right, of so many tokens each."""
    samples = tuple(
        replace(one, num_tokens=count, finish=(finish or {}).get(index, "stop"))
        for index, (one, count) in enumerate(
            zip(answers("add", [1.0] * len(tokens)), tokens, strict=True)
        )
    )
    return make_arm(name, {"add": samples})


def critical(**changes: object) -> Suite:
    return suite_of(task_spec(items=ITEMS), **({"length": CRITICAL} | changes))


def judged(
    after: list[int], suite: Suite | None = None, *, before: list[int] | None = None
) -> Verdict:
    baseline, candidate = arm("baseline", before or BEFORE), arm("candidate", after)
    return judge(suite or critical(), baseline, candidate, verified=True)


def length_of(verdict: Verdict) -> LengthVerdict:
    found = verdict.tasks[0].length
    assert found is not None
    return found


def test_answers_twice_as_long_are_no_go_at_equal_accuracy() -> None:
    verdict = judged([2 * tokens for tokens in BEFORE])
    assert (verdict.decision, verdict.reason_codes[0]) == (
        Decision.NO_GO,
        ReasonCode.ANSWERS_LONGER,
    )
    assert verdict.tasks[0].decision is Decision.GO
    assert "answers are 2.000 times as long" in verdict.summary
    assert length_of(verdict).ratio == pytest.approx(2.0)


def test_answers_half_as_long_are_no_go_too() -> None:
    verdict = judged([tokens // 2 for tokens in BEFORE])
    assert verdict.reason_codes[0] is ReasonCode.ANSWERS_SHORTER


def test_answers_of_the_same_length_pass() -> None:
    verdict = judged(BEFORE)
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR,)
    found = length_of(verdict)
    assert (found.standing, found.ratio) == (Standing.WITHIN, 1.0)
    assert found.low < 1 < found.high


def test_where_length_is_advisory_a_go_warns_of_longer_answers() -> None:
    verdict = judged([2 * tokens for tokens in BEFORE], critical(length=Band()))
    assert verdict.decision is Decision.GO
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR, ReasonCode.ANSWERS_LONGER)
    assert "a warning, answers-longer: add: answers are 2.000 times as long" in verdict.summary


def test_few_answers_of_equal_length_show_nothing() -> None:
    suite = critical(tasks=(task_spec(items=30, margin=0.3),))
    verdict = judged(BEFORE[:30], suite, before=BEFORE[:30])
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)
    assert "answers are 1.000 times as long" in verdict.summary


def test_a_tasks_own_band_takes_the_suites_place() -> None:
    wide = task_spec(items=ITEMS, length=Band(band=1.5, tier=Tier.CRITICAL))
    after = [2 * tokens for tokens in BEFORE]
    assert judged(after, critical(tasks=(wide,))).decision is Decision.GO
    narrow = task_spec(items=ITEMS, length=CRITICAL)
    strict = critical(tasks=(narrow,), length=Band(band=1.5, tier=Tier.ADVISORY))
    assert judged(after, strict).reason_codes[0] is ReasonCode.ANSWERS_LONGER


def test_a_few_answers_that_run_on_are_not_taken_for_within() -> None:
    after = [8 * t if index < 6 else t for index, t in enumerate(BEFORE)]  # 2 % of them
    verdict = judged(after)
    assert length_of(verdict).ratio == pytest.approx(math.exp(6 * math.log(8) / ITEMS))
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)


def test_cut_answers_may_have_been_longer() -> None:
    suite = critical(max_truncated=0.5, max_rise=0.5)
    cut = dict.fromkeys(range(30), "length")
    before, after = arm("baseline", BEFORE, cut), arm("candidate", BEFORE, cut)
    verdict = judge(suite, before, after, verified=True)
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)
    found = length_of(verdict)
    assert (found.num_cut_baseline, found.num_cut_candidate) == (30, 30)
    assert found.high > math.exp(0.1 * math.log(2))
    assert "30 of the candidate's and 30 of the baseline's were cut" in verdict.summary


def test_cut_answers_of_the_candidate_hide_no_growth() -> None:
    suite = critical(max_truncated=0.5, max_rise=0.5)
    after = arm("candidate", [50] * ITEMS, dict.fromkeys(range(ITEMS), "length"))
    verdict = judge(suite, arm("baseline", [20] * ITEMS), after, verified=True)
    assert ReasonCode.ANSWERS_LONGER in verdict.reason_codes


def test_answers_that_nobody_counted_are_not_enough_where_length_is_critical() -> None:
    old = make_arm("baseline", {"add": answers("add", [1.0] * ITEMS)})
    verdict = judge(critical(), old, arm("candidate", BEFORE), verified=True)
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)
    assert "the tokens of its answers were not counted in both arms" in verdict.summary
    advisory = judge(critical(length=Band()), old, arm("candidate", BEFORE), verified=True)
    assert advisory.reason_codes == (ReasonCode.NON_INFERIOR,)
    assert advisory.tasks[0].length is None


@pytest.mark.parametrize("missing", ["late", "absent"])
def test_a_critical_length_of_an_advisory_task_needs_answers_of_both_arms(missing: str) -> None:
    hard = task_spec("hard", items=ITEMS, tier=Tier.ADVISORY, length=CRITICAL)
    suite = critical(tasks=(task_spec(items=ITEMS), hard), length=Band())
    right = answers("hard", [1.0] * ITEMS)
    counted = tuple(replace(one, num_tokens=20) for one in right)
    late = tuple(replace(one, finish="timeout", value=0.0) for one in right)
    before = {"add": arm("baseline", BEFORE).samples["add"], "hard": counted}
    after = {"add": before["add"], "hard": counted}
    if missing == "late":
        before["hard"] = late
    else:
        del after["hard"]
    both = make_arm("baseline", before), make_arm("candidate", after)
    verdict = judge(suite, *both, verified=True)
    assert verdict.reason_codes == (ReasonCode.NOT_ENOUGH_EVIDENCE,)
    assert "hard: the tokens of its answers were not counted in both arms" in verdict.summary


@pytest.mark.parametrize("failed", [0, 1])
def test_a_task_that_generates_nothing_has_no_length_to_gate(failed: int) -> None:
    read = task_spec("read", items=ITEMS, tier=Tier.ADVISORY)
    scored = answers("read", [1.0] * ITEMS, finish="scored")
    broken = (*(replace(s, finish="error") for s in scored[:failed]), *scored[failed:])
    before = {"add": arm("baseline", BEFORE).samples["add"], "read": scored}
    after = {"add": before["add"], "read": broken}
    both = make_arm("baseline", before), make_arm("candidate", after)
    verdict = judge(critical(tasks=(task_spec(items=ITEMS), read)), *both, verified=True)
    assert verdict.reason_codes == (ReasonCode.NON_INFERIOR,)


def test_a_single_answer_that_nobody_counted_may_be_of_any_length() -> None:
    known = length_of(judged(BEFORE))
    candidate = arm("candidate", BEFORE)
    samples = list(candidate.samples["add"])
    samples[0] = replace(samples[0], num_tokens=None)
    some = Arm(scorecard=candidate.scorecard, samples={"add": tuple(samples)})
    found = length_of(judge(critical(), arm("baseline", BEFORE), some, verified=True))
    assert found.low < known.low
    assert found.high > known.high
    assert found.num_items == ITEMS - 1


def test_items_asked_several_times_count_once() -> None:
    def repeated(tokens: list[int]) -> tuple[Sample, ...]:
        ones = answers("add", [1.0] * (2 * ITEMS))
        return tuple(
            replace(one, doc_id=index // 2, num_tokens=count)
            for index, (one, count) in enumerate(zip(ones, tokens, strict=True))
        )

    before = make_arm("baseline", {"add": repeated([20] * 2 * ITEMS)})
    after = make_arm("candidate", {"add": repeated([10, 40] * ITEMS)})
    twice = critical(tasks=(task_spec(items=ITEMS, repeats=2),))
    verdict = judge(twice, before, after, verified=True)
    found = length_of(verdict)
    assert found.num_items == ITEMS
    assert found.ratio == pytest.approx(1.0)
    assert found.standing is Standing.WITHIN


def test_an_item_of_which_one_answer_was_not_counted_may_be_of_any_length() -> None:
    """No item of the candidate has both answers counted: nothing is known of its length."""

    def repeated(of_each: list[int | None]) -> tuple[Sample, ...]:
        ones = answers("add", [1.0] * (2 * ITEMS))
        return tuple(
            replace(one, doc_id=index // 2, repeat=index % 2, num_tokens=of_each[index % 2])
            for index, one in enumerate(ones)
        )

    before = make_arm("baseline", {"add": repeated([20, 20])})
    after = make_arm("candidate", {"add": repeated([20, None])})
    twice = critical(tasks=(task_spec(items=ITEMS, repeats=2, tier=Tier.ADVISORY),))
    verdict = judge(twice, before, after, verified=True)
    assert verdict.tasks[0].length is None
    assert ReasonCode.NOT_ENOUGH_EVIDENCE in verdict.reason_codes


def test_all_tasks_together_say_how_much_longer_answers_are() -> None:
    verdict = judged([2 * tokens for tokens in BEFORE])
    assert verdict.length is not None
    assert verdict.length.tier is Tier.ADVISORY
    assert verdict.length.ratio == pytest.approx(2.0)


def test_a_verdict_of_an_older_version_is_still_read(tmp_path: Path) -> None:
    judged_now = judged(BEFORE)
    new = {"length", "size", "speed", "buys", "repeats", "estimates"}
    values = to_json(judged_now)
    assert isinstance(values, dict)
    old = {key: value for key, value in values.items() if key not in new}
    old["tasks"] = [{k: v for k, v in task.items() if k not in new} for task in old["tasks"]]
    record = {"made_from": {}, **old}
    text = json.dumps({"record_sha256": digest_of_record(record), **record})
    (tmp_path / "verdict.json").write_text(text, encoding="utf-8")
    read = load(Verdict, tmp_path / "verdict.json")
    assert read.reason_codes == judged_now.reason_codes
    assert (read.length, read.size, read.speed, read.tasks[0].length) == (None,) * 4
