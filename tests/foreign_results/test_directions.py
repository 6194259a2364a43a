"""Of an error rate less is better: a rise is a loss, in every tool's records."""

from pathlib import Path
from typing import Any

import pytest

from harness.foreign import read_recorded, suite_of_recorded, write_as
from harness.foreign.arms import to_arm
from tests.foreign_results.conftest import change_results, change_samples, judge, refusal
from tests.foreign_results.test_lm_eval import write_suite

Arms = tuple[Path, Path]
GO = ("--missing-evidence", "go")


def as_error_rate(arms: Arms, *, rises_to: float = 0.4, told: str = "results") -> None:
    """Make mul20 a task of an error rate, 0.1 of the baseline; say so as lm-eval does."""
    for folder, rate in zip(arms, (0.1, rises_to), strict=True):

        def rated(lines: list[dict[str, Any]], rate: float = rate) -> None:
            lines[:] = [
                line | {"metrics": ["wer"], "wer": rate + 0.01 * (-1) ** line["doc_id"]}
                for line in lines
                if line["filter"] == "strict"
            ]

        def say(values: dict[str, Any]) -> None:
            listed = {"metric": "wer", "aggregation": "mean"}
            if told == "the task":
                listed["higher_is_better"] = False  # type: ignore[assignment]
            values["configs"]["mul20"]["metric_list"] = [listed]
            values["higher_is_better"]["mul20"] = {"wer": False} if told == "results" else {}

        change_samples(folder, "mul20", rated)
        change_results(folder, say)


def mul20(verdict: dict[str, Any]) -> dict[str, Any]:
    return next(task for task in verdict["tasks"] if task["task"] == "mul20")


@pytest.mark.parametrize("told", ["results", "the task"])
def test_a_candidate_with_more_errors_is_no_go(arms: Arms, told: str) -> None:
    as_error_rate(arms, told=told)
    done = judge(*arms, "--margin", 0.02, *GO)
    task = mul20(done.json)
    assert (done.code, task["decision"]) == (4, "NO-GO")
    assert (task["baseline"], task["candidate"]) == pytest.approx((0.9, 0.6))


def test_a_candidate_with_fewer_errors_wins(arms: Arms) -> None:
    as_error_rate(arms, rises_to=0.05)
    task = mul20(judge(*arms, "--margin", 0.3, *GO).json)
    assert (task["decision"], task["candidate"]) == ("GO", pytest.approx(0.95))


def test_the_scope_says_that_less_is_better(arms: Arms) -> None:
    as_error_rate(arms)
    scope = " ".join(judge(*arms, "--margin", 0.02).json["scope"])
    assert "of wer (filter strict) in mul20 less is better: 1 counts as 0 %" in scope


def test_a_metric_of_which_nothing_is_told_is_said_in_the_scope(arms: Arms) -> None:
    as_error_rate(arms, told="nowhere")
    scope = " ".join(judge(*arms, "--margin", 0.02).json["scope"])
    assert "of wer (filter strict) in mul20 more is taken for better: lm-eval does not" in scope


def test_arms_in_which_a_metric_runs_two_ways_are_refused(arms: Arms) -> None:
    as_error_rate(arms)
    change_results(arms[1], lambda v: v["higher_is_better"]["mul20"].update(wer=True))
    assert "differ in which way metrics run (higher_is_better)" in refusal(*arms, "--margin", 0.02)


def test_a_suite_that_takes_more_errors_for_better_is_refused(arms: Arms, tmp_path: Path) -> None:
    as_error_rate(arms)
    suite = write_suite(tmp_path, metric="wer", value_range=[0, 1], spread=0.5)
    text = refusal(*arms, "--suite", suite)
    assert "of metric wer less is better, and suite 'own' takes 0 for the worst" in text
    assert "Correct its value_range, such as [1, 0], worst first." in text


def test_a_suite_that_takes_fewer_errors_for_better_judges(arms: Arms, tmp_path: Path) -> None:
    as_error_rate(arms)
    suite = write_suite(tmp_path, metric="wer", value_range=[1, 0], spread=0.5)
    assert mul20(judge(*arms, "--suite", suite).json)["decision"] == "NO-GO"


def test_tasks_whose_metric_runs_two_ways_are_no_group(arms: Arms) -> None:
    """Both tasks of both20 have a metric of one name; of one of them less is better."""
    for arm in arms:

        def one(lines: list[dict[str, Any]]) -> None:
            lines[:] = [
                line | {"filter": "strict", "metrics": ["m"], "m": 1.0}
                for line in lines
                if line["filter"] in {"strict", "none"}
            ]

        for task, is_up in (("mul20", True), ("cmp20", False)):
            change_samples(arm, task, one)

            def say(values: dict[str, Any], task: str = task, is_up: bool = is_up) -> None:  # noqa: FBT001
                values["higher_is_better"][task] = {"m": is_up}

            change_results(arm, say)
    tasks = judge(*arms, "--margin", 0.02).json["tasks"]
    assert [(task["task"], task["baseline"]) for task in tasks] == [("mul20", 1.0), ("cmp20", 0.0)]


def test_an_error_rate_that_we_wrote_is_judged_alike(arms: Arms, tmp_path: Path) -> None:
    as_error_rate(arms)
    baseline, candidate = (read_recorded(arm) for arm in arms)
    suite = suite_of_recorded(baseline, candidate, 0.02)
    ours = {
        one: to_arm(read_recorded(arm), suite, arm=one) for one, arm in zip("ab", arms, strict=True)
    }
    write_as("lm-eval", ours, suite, tmp_path / "out")
    done = judge(tmp_path / "out" / "a", tmp_path / "out" / "b", "--margin", 0.02)
    assert mul20(done.json)["candidate"] == pytest.approx(0.6)
