"""The smoke run in the reports: side by side, not run is not passed, and salad cannot break out."""

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from harness.artifacts import RunRecord, SmokeReport
from harness.report import terminal_smoke, write_report
from tests.smoke.scripted import BASELINE, GOOD_ANSWERS, candidate, replies, report_of

HOSTILE = "<script>alert(1)</script> | \x00 wrong"


@pytest.fixture
def failing() -> SmokeReport:
    wrong = GOOD_ANSWERS | {"gold": HOSTILE, "planet": "x", "leap": "y"}
    return report_of(candidate(replies=replies(wrong)))


@pytest.fixture
def unread() -> SmokeReport:
    blind = dataclasses.replace(BASELINE, readings=())
    return report_of(candidate(readings=()), blind)


def test_the_page_shows_lost_answers_first_and_escapes_them(
    full: RunRecord, failing: SmokeReport, tmp_path: Path
) -> None:
    files = write_report(dataclasses.replace(full, smoke=failing), into=tmp_path)
    html = files.html.read_text()
    assert "Before scoring: smoke scripted, declared numerics" in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>" not in html
    assert "\x00" not in html
    assert html.index("gold, greedy") < html.index("open-1, greedy")
    markdown = files.markdown.read_text()
    (row,) = [line for line in markdown.splitlines() if line.startswith("| gold? |")]
    assert "\\|" in row
    assert "<script>" not in row


def test_what_was_not_run_is_skipped_in_junit_and_named_on_the_page(
    full: RunRecord, unread: SmokeReport, tmp_path: Path
) -> None:
    files = write_report(dataclasses.replace(full, smoke=unread), into=tmp_path)
    root = ET.parse(files.junit).getroot()  # noqa: S314 - written just now
    (suite,) = [one for one in root if one.get("name") == "harness.smoke"]
    assert (suite.get("skipped"), suite.get("failures")) == ("6", "0")
    assert '<span class="chip inconclusive">not run</span>' in files.html.read_text()
    assert "6 not run" in terminal_smoke(dataclasses.replace(full, smoke=unread))


def test_both_smoke_runs_are_told_apart(
    full: RunRecord, failing: SmokeReport, unread: SmokeReport
) -> None:
    deployed = dataclasses.replace(unread, numerics="deployed")
    text = terminal_smoke(dataclasses.replace(full, smoke=deployed, smoke_declared=failing))
    assert "smoke scripted, deployed numerics: " in text
    assert "smoke scripted, declared numerics: " in text
    assert "  smoke-known-answers: the candidate lost 3 of 10" in text
    assert "\x00" not in text


def test_a_run_without_a_smoke_run_says_nothing_of_one(full: RunRecord, tmp_path: Path) -> None:
    assert terminal_smoke(full) == ""
    assert "Before scoring" not in write_report(full, into=tmp_path).html.read_text()
