"""What the trend page says; how it looks is asked of a real browser beside this file."""

import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from harness.artifacts import AlarmCause, CellEnding, CellWaiver, NightRow, Purpose, Scale
from harness.report import Notes, write_trend
from harness.report.trend import trend_html
from harness.report.trend_nights import hosts_of
from tests.report.nights import (
    alarm,
    failed_row,
    hostile_nights,
    night_row,
    task_night,
    three_alarms,
    three_weeks,
)
from tests.report.test_report import Page

WAIVER = CellWaiver(reason="kernel bug 123", approver="A. Person", expires=date(2031, 4, 1))


def heading(text: str) -> str:
    found = re.search(r"<h1>(.*?)</h1>", text)
    assert found is not None
    return found[1]


def kinds(text: str) -> list[str]:
    """Return the class of each box of the table."""
    table = text[text.index('class="boxes"') : text.index('class="legend"')]
    return re.findall(r'class="box ([\w-]+)"', table)


def test_three_weeks_are_one_page(tmp_path: Path) -> None:
    page = Page(write_trend(three_weeks(), three_alarms(), tmp_path).read_text(encoding="utf-8"))
    for said in (
        "ALARM",
        "deepseek-v4-fp8_block-h200",
        "93.00 %",
        "vllm 0.33.0 became vllm 0.34.0",
    ):
        assert said in page.text
    assert [link for link in page.links if not link.startswith("#")] == []
    assert "script" not in page.tags


def test_the_same_rows_give_the_same_bytes() -> None:
    assert trend_html(three_weeks(), three_alarms()) == trend_html(three_weeks(), three_alarms())


def test_a_ledger_without_rows_is_no_green_page() -> None:
    assert heading(trend_html([], [])) == "NO NIGHT"


def test_only_a_night_in_which_every_cell_is_go_is_green() -> None:
    assert heading(trend_html([night_row("a"), night_row("b")], [])) == "ALL GO"


@pytest.mark.parametrize("ending", [one for one in CellEnding if one is not CellEnding.GO])
def test_any_other_ending_is_not_green(ending: CellEnding) -> None:
    text = trend_html([night_row("a"), night_row("b", ending=ending)], [])
    assert heading(text) not in {"ALL GO", "GO WITH WAIVERS"}
    assert 'class="banner go"' not in text


def test_a_cell_without_a_row_in_the_last_night_is_not_green() -> None:
    text = trend_html([night_row("a"), night_row("b"), night_row("a", 1)], [])
    assert heading(text) == "NOT ALL RAN"
    assert "nothing is recorded since 2031-03-01" in text


@pytest.mark.parametrize("ending", [CellEnding.GO, CellEnding.NO_GO])
def test_a_waived_cell_is_never_green(ending: CellEnding) -> None:
    text = trend_html([night_row("a"), night_row("b", ending=ending, waiver=WAIVER)], [])
    assert heading(text) == "GO WITH WAIVERS"
    assert kinds(text) == ["go", "waived"]
    assert "waived by A. Person until 2031-04-01: kernel bug 123" in text


def test_a_waiver_excuses_its_own_cell_alone() -> None:
    lost = night_row("b", ending=CellEnding.NO_GO)
    assert heading(trend_html([night_row("a", waiver=WAIVER), lost], [])) == "NO-GO"


def test_a_real_alarm_is_told_though_every_cell_is_go() -> None:
    assert heading(trend_html([night_row("a")], [alarm(cell="a")])) == "ALARM"


@pytest.mark.parametrize("cause", [one for one in AlarmCause if one is not AlarmCause.REAL])
def test_an_alarm_that_is_not_real_is_listed_with_its_cause(cause: AlarmCause) -> None:
    text = trend_html([night_row("a")], [alarm(cell="a", cause=cause)])
    assert heading(text) == "ALL GO"
    assert f">{cause}</span>" in text


def _kinds(rows: list[NightRow]) -> list[str]:
    return kinds(trend_html(rows, []))


def test_a_retry_replaces_a_run_that_failed_and_says_so() -> None:
    again = night_row("a", attempt=2, purpose=Purpose.RETRY)
    assert _kinds([failed_row("a"), again]) == ["go"]
    assert "after a retry" in trend_html([failed_row("a"), again], [])


def test_a_confirmation_says_nothing_of_its_cell() -> None:
    lost = night_row("a", ending=CellEnding.NO_GO)
    again = night_row("a", attempt=2, purpose=Purpose.CONFIRMATION)
    assert _kinds([lost, again]) == ["no-go"]


def test_that_a_later_attempt_was_not_run_takes_no_ending_away() -> None:
    lost = night_row("a", ending=CellEnding.NO_GO)
    assert _kinds([lost, night_row("a", attempt=2, ending=CellEnding.NOT_RUN)]) == ["no-go"]


def test_a_waiver_ends_with_its_last_day() -> None:
    expired = replace(WAIVER, expires=date(2031, 2, 28))
    text = trend_html([night_row("a", ending=CellEnding.NO_GO, waiver=expired)], [])
    assert heading(text) == "NO-GO"
    assert kinds(text) == ["no-go"]
    assert "no longer waived: it was by A. Person until 2031-02-28" in text


def test_runs_that_are_not_counted_are_drawn_as_rings_beside_the_line() -> None:
    rows = [night_row("a", night) for night in range(3)]
    again = night_row("a", 2, attempt=2, purpose=Purpose.CONFIRMATION)
    text = trend_html([*rows, again], [])
    plot = text[text.index("<h3>gsm8k</h3>") : text.index("<h3>ifeval</h3>")]
    assert plot.count('class="disc"') == len(rows)
    assert plot.count('class="ring"') == 1


def test_a_night_without_a_score_breaks_the_line_and_is_marked() -> None:
    rows = [night_row("a", n) if n != 2 else failed_row("a", n) for n in range(5)]
    text = trend_html(rows, [])
    plot = text[text.index("<h3>gsm8k</h3>") : text.index("<h3>ifeval</h3>")]
    assert plot.count('class="value"') == 2
    assert plot.count('class="none"') == 1


def test_a_score_stands_with_its_interval_baseline_and_what_is_allowed() -> None:
    text = trend_html([night_row("a", tasks=(task_night(candidate=0.94),))], [])
    said = "2031-03-01: 94.00 % (93.10 % to 94.90 %), baseline 94.50 %, allowed from 92.50 %"
    assert said in text


def test_the_bounds_of_a_perplexity_are_not_drawn_as_a_score() -> None:
    task = replace(task_night(candidate=9.1), baseline=9.0, scale=Scale.PERPLEXITY)
    text = trend_html([night_row("a", tasks=(task,))], [])
    assert "2031-03-01: 9.1, baseline 9" in text
    assert 'class="interval"' not in text


def test_the_machine_that_fails_most_for_its_share_stands_first() -> None:
    rows = [night_row("a", night, host="busy") for night in range(20)]
    rows += [failed_row("b", night, host="sick") for night in range(4)]
    rows += [failed_row("a", night, host="busy") for night in range(21, 26)]
    hosts = [(one.host, one.num_failed, one.num_runs) for one in hosts_of(rows)]
    assert hosts == [("sick", 4, 4), ("busy", 5, 25)]


def test_a_sick_host_and_a_cell_without_an_anchor_are_told() -> None:
    notes = Notes(hosts=("4 of 5 failures on host sick",), unwatched={"a": "no anchor is set"})
    page = Page(trend_html([night_row("a")], [], notes))
    assert "4 of 5 failures on host sick" in page.text
    assert "Compared with no anchor" in page.text
    assert "no anchor is set" in page.text


def test_a_night_that_is_named_like_an_older_one_keeps_the_ledgers_order() -> None:
    rows = [night_row("a", 5), night_row("a", 3, ending=CellEnding.NO_GO)]
    assert heading(trend_html(rows, [])) == "NO-GO"


def test_nothing_that_names_hold_becomes_part_of_the_page(tmp_path: Path) -> None:
    text = write_trend(*hostile_nights(), tmp_path).read_text(encoding="utf-8")
    assert set(Page(text).tags).isdisjoint({"script", "img", "iframe", "link"})
    assert "&lt;script&gt;" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]", text)
    assert "{{ 7*7 }}" in text


def test_the_page_forbids_whatever_it_does_not_hold() -> None:
    text = trend_html(three_weeks(), [])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
    assert ' style="' not in text
