"""Lengths, speeds, sizes and repeats as they are shown."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts import (
    Band,
    Estimate,
    LengthVerdict,
    RunRecord,
    SizeVerdict,
    SpeedVerdict,
    Standing,
    Tier,
    Verdict,
)
from harness.errors import ReasonCode
from harness.report import terminal_table, write_report
from harness.report.junit import junit_xml
from tests.nouns import deployment, scorecard, task_score


def longer(**changes: object) -> LengthVerdict:
    made = LengthVerdict(
        tier=Tier.CRITICAL,
        band=Band().band,
        num_items=400,
        baseline=5120.25,
        candidate=10340.5,
        ratio=2.03,
        low=1.98,
        high=2.09,
        num_cut_baseline=3,
        num_cut_candidate=41,
        standing=Standing.BEYOND,
        reason=ReasonCode.ANSWERS_LONGER,
        message="answers are 2.030 times as long",
        baseline_thoughts=4800.0,
        candidate_thoughts=9988.0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # the fields vary by test


SIZE = SizeVerdict(
    baseline_bytes=3 << 30,
    candidate_bytes=1 << 30,
    promised_bytes=1 << 30,
    reduced=True,
    message="the weight files take 1024.0 MiB",
)
NOT_COMPARED = SpeedVerdict(
    tier=Tier.ADVISORY,
    band=0.05,
    standing=Standing.UNCLEAR,
    reason=ReasonCode.NOT_ENOUGH_EVIDENCE,
    message="the speeds are not compared: both arms were at work on one machine at once",
    why_not="both arms were at work on one machine at once",
)
FASTER = replace(
    NOT_COMPARED,
    why_not="",
    standing=Standing.WITHIN,
    reason=ReasonCode.NON_INFERIOR,
    message="1.60 times the tokens a second",
    baseline=41.25,
    candidate=66.0,
    ratio=1.6,
    low=1.5,
    high=1.7,
    num_blocks=40,
    first_token_baseline_s=0.0421,
    first_token_candidate_s=0.031,
)


def with_costs(record: RunRecord, speed: SpeedVerdict = FASTER) -> RunRecord:
    verdict = record.verdict
    assert verdict is not None
    estimate = Estimate(name="majority of 16", baseline=0.91, candidate=0.9)
    first = replace(verdict.tasks[1], length=longer(), repeats=16, estimates=(estimate,))
    tasks = (verdict.tasks[0], first, *verdict.tasks[2:])
    overall = longer(tier=Tier.ADVISORY)
    changed = replace(verdict, tasks=tasks, length=overall, size=SIZE, speed=speed)
    ended = task_score(
        first.task,
        (),
        repeats=16,
        finishes={"length": 11, "stop": 6353, "thoughts_cut": 30, "timeout": 6},
        num_thoughts_cut=30,
    )
    return replace(record, verdict=changed, candidate=scorecard("candidate", deployment(), ended))


def verdict_of(record: RunRecord) -> Verdict:
    assert record.verdict is not None
    return record.verdict


@pytest.fixture
def written(full: RunRecord, tmp_path: Path) -> tuple[str, str]:
    files = write_report(with_costs(full), into=tmp_path)
    return files.html.read_text(encoding="utf-8"), files.markdown.read_text(encoding="utf-8")


def test_both_reports_show_lengths_speed_size_and_repeats(written: tuple[str, str]) -> None:
    for report in written:
        for shown in ("5120.2 (4800.0)", "1.980 to 2.090", "3 / 41", "41.2", "1.60 x", "31 ms"):
            assert shown in report
        for shown in (
            "majority of 16",
            "90.00 %",
            "6353 stop, 30 thoughts cut, 11 length, 6 timeout",
        ):
            assert shown in report
        assert "3.00 GiB" in report


def test_a_speed_that_is_not_compared_is_a_sentence_without_numbers(
    full: RunRecord, tmp_path: Path
) -> None:
    record = with_costs(full, NOT_COMPARED)
    page = write_report(record, into=tmp_path).html.read_text(encoding="utf-8")
    assert "Speeds are not compared: both arms were at work on one machine at once." in page
    assert "Tokens a second" not in page


def test_the_terminal_names_tasks_whose_answers_grew(full: RunRecord) -> None:
    table = terminal_table(verdict_of(with_costs(full)))
    assert "reverse: answers are 2.030 times as long (critical: beyond)" in table
    assert all(len(line) <= 100 for line in table.splitlines())


def test_a_critical_length_beyond_its_band_is_a_failure_in_junit(full: RunRecord) -> None:
    root = ET.fromstring(junit_xml(with_costs(full, NOT_COMPARED)))  # noqa: S314  our own document
    cases = {case.get("name"): case for case in root.iter("testcase")}
    failure = cases["length of reverse"].find("failure")
    assert failure is not None
    assert failure.get("type") == "answers-longer"
    assert cases["speed"].find("skipped") is not None
    properties = {p.get("name"): p.get("value") for p in cases["size"].iter("property")}
    assert properties["candidate_bytes"] == str(1 << 30)


def test_a_verdict_without_costs_shows_none(full: RunRecord, tmp_path: Path) -> None:
    page = write_report(full, into=tmp_path).html.read_text(encoding="utf-8")
    for title in ("What it costs", "How long answers are", "How answers went"):
        assert title not in page
