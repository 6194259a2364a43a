import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.artifacts import (
    Decision,
    Finding,
    Gap,
    Loaded,
    PooledTest,
    Recovery,
    RunRecord,
    Severity,
    TaskVerdict,
    Verdict,
)
from harness.errors import ReasonCode
from harness.report import terminal_table, write_report
from tests.nouns import deployment as deployment_of

MakeTask = Callable[..., TaskVerdict]


class Page(HTMLParser):
    """The texts and the elements of a page; unclosed or crossed elements are an error."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in {"src", "href", "xlink:href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def verdict_of(record: RunRecord) -> Verdict:
    assert record.verdict is not None
    return record.verdict


def cases(path: Path) -> dict[str, ET.Element]:
    root = ET.parse(path).getroot()  # noqa: S314  written by the code under test
    return {str(case.get("name")): case for case in root.iter("testcase")}


def test_the_page_shows_the_verdict_and_its_numbers(full: RunRecord, tmp_path: Path) -> None:
    page = Page(write_report(full, into=tmp_path).html.read_text(encoding="utf-8"))
    for text in ("GO", "non-inferior", "98.50 %", "-1.97 to +0.34", "beyond", "126 of 128 expert"):
        assert text in page.text
    assert "vllm serve runs/canary-nvfp4-1a2b3c4d/checkpoint" in page.text
    assert "ignore-patterns-used" in page.text
    assert page.tags.count("svg") == 3


def test_the_page_needs_nothing_beside_it(full: RunRecord, tmp_path: Path) -> None:
    text = write_report(full, into=tmp_path).html.read_text(encoding="utf-8")
    outside = [link for link in Page(text).links if not link.startswith(("#", "data:"))]
    assert outside == []
    fetched = re.findall(r"(?:url\(|@import)\s*['\"]?([^#)'\"\s]+)", text)
    assert [target for target in fetched if not target.startswith("data:")] == []


def test_identifiers_of_the_plots_do_not_collide(full: RunRecord, tmp_path: Path) -> None:
    text = write_report(full, into=tmp_path).html.read_text(encoding="utf-8")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^\")]+)", text))
    defined = re.findall(r' id="([^"]+)"', text)
    assert used <= set(defined)
    assert [name for name in used if defined.count(name) > 1] == []


def test_answers_are_escaped_and_salad_is_made_visible(full: RunRecord, tmp_path: Path) -> None:
    text = write_report(full, into=tmp_path).html.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;alert(" in text
    assert "Teteveien.\ufffd\ufffd" in text
    assert "\x07" not in text


def test_a_long_prompt_shows_its_end_and_a_long_answer_its_beginning(
    full: RunRecord, tmp_path: Path
) -> None:
    verdict = verdict_of(full)
    flip = replace(verdict.flips[0], prompt="a" * 5000 + "END?", candidate="START" + "b" * 5000)
    record = replace(full, verdict=replace(verdict, flips=(flip,)))
    page = Page(write_report(record, into=tmp_path).html.read_text(encoding="utf-8"))
    assert "[...]aaa" in page.text
    assert "END?" in page.text
    assert "STARTbbb" in page.text
    assert "a" * 1000 not in page.text
    assert "b" * 1000 not in page.text


def test_the_same_record_gives_the_same_bytes(full: RunRecord, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = (write_report(full, into=tmp_path / name) for name in ("one", "two"))
    for left, right in zip(one, two, strict=True):
        assert left.read_bytes() == right.read_bytes()


def test_a_failed_run_is_reported_with_what_is_known(failed: RunRecord, tmp_path: Path) -> None:
    files = write_report(failed, into=tmp_path)
    page = Page(files.html.read_text(encoding="utf-8"))
    for text in ("FAILED", "disk-full", "no space left while writing 'x' & <y>", "lm_head"):
        assert text in page.text
    assert "no space left" in files.markdown.read_text(encoding="utf-8")
    problem = cases(files.junit)["verdict"].find("error")
    assert problem is not None
    assert problem.get("type") == "disk-full"
    assert "largest absolute input" in page.text


def test_a_run_of_which_nothing_is_known_is_reported(empty: RunRecord, tmp_path: Path) -> None:
    files = write_report(empty, into=tmp_path)
    assert "NO VERDICT" in Page(files.html.read_text(encoding="utf-8")).text
    found = cases(files.junit)
    assert all(case.find("skipped") is not None for case in found.values())
    assert set(found) == {
        "integrity",
        "deployment",
        "reverse [exact_match]",
        "two_digit_addition [exact_match]",
        "long_recall [exact_match]",
        "never_ran [exact_match]",
        "verdict",
    }


def test_every_check_and_every_task_is_a_test_case(full: RunRecord, tmp_path: Path) -> None:
    found = cases(write_report(full, into=tmp_path).junit)
    assert found["reverse [exact_match]"].find("failure") is None
    numbers = {
        p.get("name"): p.get("value") for p in found["reverse [exact_match]"].iter("property")
    }
    assert numbers["baseline"] == "0.985"
    assert numbers["low"] == "-0.0197"
    assert found["never_ran [exact_match]"].find("skipped") is not None
    assert found["expert-input-scales-complete"].find("failure") is None
    assert found["ignore-patterns-used"].find("failure") is None  # a warning
    assert found["long_recall [exact_match]"].find("failure") is None  # advisory
    assert found["verdict"].find("failure") is None


def test_a_failed_check_fails_its_test_case(full: RunRecord, tmp_path: Path) -> None:
    assert full.integrity is not None
    broken = replace(full.integrity.checks[0], passed=False, examples=("a", "b"))
    record = replace(full, integrity=replace(full.integrity, checks=(broken,)))
    problem = cases(write_report(record, into=tmp_path).junit)[broken.id].find("failure")
    assert problem is not None
    assert "b" in str(problem.text)


@pytest.mark.parametrize(
    ("decision", "tag"), [(Decision.NO_GO, "failure"), (Decision.INCONCLUSIVE, "error")]
)
def test_what_is_not_go_is_never_green(
    full: RunRecord, task: MakeTask, tmp_path: Path, decision: Decision, tag: str
) -> None:
    reason = ReasonCode.TASK_INFERIOR
    bad = task("reverse", decision=decision, reason=reason)
    verdict = replace(
        verdict_of(full), decision=decision, reason_codes=(reason,), tasks=(bad,), summary="no"
    )
    found = cases(write_report(replace(full, verdict=verdict), into=tmp_path).junit)
    for name in ("reverse [exact_match]", "verdict"):
        problem = found[name].find(tag)
        assert problem is not None
        assert problem.get("type") == "task-inferior"


def test_a_critical_task_without_a_score_is_skipped_and_the_verdict_is_not(
    full: RunRecord, task: MakeTask, tmp_path: Path
) -> None:
    missing = task(
        "reverse",
        candidate=None,
        difference=None,
        low=None,
        high=None,
        decision=Decision.INCONCLUSIVE,
        reason=ReasonCode.SCORE_MISSING,
    )
    verdict = replace(
        verdict_of(full),
        decision=Decision.INCONCLUSIVE,
        reason_codes=(ReasonCode.SCORE_MISSING,),
        tasks=(missing,),
        flips=(),
        flip_rate=None,
        pooled_difference=None,
    )
    files = write_report(replace(full, verdict=verdict), into=tmp_path)
    found = cases(files.junit)
    assert found["reverse [exact_match]"].find("skipped") is not None
    assert found["verdict"].find("error") is not None
    assert "INCONCLUSIVE" in files.markdown.read_text(encoding="utf-8")


def test_experts_that_saw_too_few_tokens_are_named(full: RunRecord, tmp_path: Path) -> None:
    files = write_report(full, into=tmp_path)
    for file in (files.html, files.markdown):
        text = file.read_text()
        assert "2 of 128 projections of experts saw no token in the calibration, 1.6%" in text
        assert ".layers.2.mlp.experts.5.down_proj" in text


def test_an_older_report_is_replaced(full: RunRecord, empty: RunRecord, tmp_path: Path) -> None:
    write_report(full, into=tmp_path)
    files = write_report(empty, into=tmp_path)
    assert "98.50" not in files.html.read_text(encoding="utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["junit.xml", "report.html", "report.md"]


def test_markdown_tables_hold_one_line_a_task(full: RunRecord, tmp_path: Path) -> None:
    verdict = verdict_of(full)
    odd = replace(verdict.tasks[1], task="a|b\nc<d>")
    record = replace(full, verdict=replace(verdict, tasks=(odd,)))
    text = write_report(record, into=tmp_path).markdown.read_text(encoding="utf-8")
    assert "| a\\|b c&lt;d> | critical | 98.50 % |" in text


def test_the_terminals_table_fits_and_keeps_its_columns(task: MakeTask, full: RunRecord) -> None:
    tasks = (
        *verdict_of(full).tasks,
        task("a_task_with_a_name_beyond_all_reason", decision=Decision.INCONCLUSIVE),
        task("gone", baseline=None, candidate=None, difference=None, low=None, high=None),
        task("salad", baseline=1.0, candidate=0.0, difference=-1.0, low=-1.0, high=-0.99),
    )
    table = terminal_table(replace(verdict_of(full), tasks=tasks))
    assert max(len(line) for line in table.splitlines()) <= 100
    lines = table.splitlines()[: len(tasks) + 1]
    assert table.splitlines()[len(lines) :] == ["5.25% of the answers flipped"]
    assert table.isascii()
    column = lines[0].index("decision")
    words = [line[column:] for line in lines[1:]]
    assert words == ["beyond", "GO", "GO", "INCONCLUSIVE", "GO", "GO"]
    assert all(line[column - 2 : column] == "  " for line in lines)


def judged_otherwise(full: RunRecord) -> RunRecord:
    """The run with a recovery, clusters, a claim, a rerun, and a warning of all tasks together."""
    verdict = verdict_of(full)
    recovery = Recovery(required=0.98, observed=0.9925, low=0.9814, high=1.0031)
    asked = replace(
        verdict.tasks[1],
        method="score interval of candidate - 0.98 x baseline, over 14 clusters",
        message="it keeps 99.25% of the baseline's accuracy, between 98.14% and 100.31%",
        recovery=recovery,
        num_clusters=14,
        p_value=0.2266,
        rerun_flip_rate=0.0125,
    )
    pooled = PooledTest(
        num_items=1200,
        num_lost=44,
        num_won=17,
        difference=-0.0225,
        low=-0.0334,
        high=-0.0119,
        p_value=0.00035,
        margin=None,
        decision=Decision.GO,
        alarm=True,
        message="lost 44 and won 17 of all 1200 items (p = 0.00035 of no loss at all)",
    )
    tasks = (verdict.tasks[0], asked)
    changed = replace(verdict, tasks=tasks, pooled=pooled, rerun_flip_rate=0.0042)
    return replace(full, verdict=changed)


def test_the_noise_floor_stands_beside_the_flips_in_every_report(
    full: RunRecord, tmp_path: Path
) -> None:
    record = judged_otherwise(full)
    files = write_report(record, into=tmp_path)
    for file in (files.html, files.markdown):
        text = file.read_text(encoding="utf-8")
        assert "5 / 2 (rerun 1.25 %)" in text
        assert "baseline against itself 0.42 %" in text
    assert 'name="rerun_flip_rate" value="0.0042"' in files.junit.read_text(encoding="utf-8")
    assert "of the baseline's own when run again, 0.42%" in terminal_table(verdict_of(record))


def test_all_tasks_together_are_in_every_report_and_a_warning_says_so(
    full: RunRecord, tmp_path: Path
) -> None:
    record = judged_otherwise(full)
    files = write_report(record, into=tmp_path)
    said = "All tasks together (warning): lost 44 and won 17 of all 1200 items"
    for file in (files.html, files.markdown):
        assert said in file.read_text(encoding="utf-8")
    assert said in terminal_table(verdict_of(record))
    assert 'name="pooled_p_value" value="0.00035"' in files.junit.read_text(encoding="utf-8")


def test_a_form_that_columns_cannot_show_is_told_in_words_even_for_go(
    full: RunRecord, tmp_path: Path
) -> None:
    record = judged_otherwise(full)
    files = write_report(record, into=tmp_path)
    for file in (files.html, files.markdown):
        text = file.read_text(encoding="utf-8")
        assert "it keeps 99.25% of the baseline" in text
    assert "score interval of candidate - 0.98 x baseline" in files.html.read_text("utf-8")
    table = terminal_table(verdict_of(record))
    assert "reverse: it keeps 99.25% of the baseline's accuracy" in table
    junit = files.junit.read_text(encoding="utf-8")
    for name, value in (("recovery", 0.9925), ("p_value", 0.2266), ("num_clusters", 14)):
        assert f'name="{name}" value="{value}"' in junit


def test_a_verdict_without_tasks_has_no_table(full: RunRecord) -> None:
    assert terminal_table(replace(verdict_of(full), tasks=())) == ""


def test_what_a_deployment_shows_is_in_every_report(empty: RunRecord, tmp_path: Path) -> None:
    finding = Finding(
        id="parameter-not-filled",
        severity=Severity.ERROR,
        message="192 of 931 parameters were filled by no tensor",
        reason=ReasonCode.SCALE_MISSING,
        incident="0 of 30,720 expert input scales were in the files",
    )
    deployment = deployment_of(
        engine="vllm",
        version="0.32.0",
        dtype="bfloat16",
        arguments=("--moe-backend", "emulation"),
        kernels={"experts": "MARLIN MarlinExperts"},
        exercised=("weights:nvfp4",),
        declared=("weights:nvfp4", "inputs:nvfp4"),
        log="server.log",
        loaded=Loaded(
            num_tensors=755, num_taken=715, num_set_aside=40, num_parameters=931, num_filled=739
        ),
        findings=(finding,),
    )
    files = write_report(replace(empty, deployment=deployment), into=tmp_path)
    page = Page(files.html.read_text(encoding="utf-8")).text
    for text in (page, files.markdown.read_text(encoding="utf-8")):
        assert "192 of 931 parameters were filled by no tensor" in text
        assert "MARLIN MarlinExperts" in text
        assert "739 of 931 parameters filled" in text
    case = cases(files.junit)["parameter-not-filled"]
    assert case.find("failure") is not None


def test_what_a_deployment_did_not_show_is_in_every_report(
    empty: RunRecord, tmp_path: Path
) -> None:
    gap = Gap(reason=ReasonCode.LOAD_NOT_RECONCILED, message="this vLLM has no `load_weights`")
    deployment = deployment_of(engine="vllm", version="0.40.0", not_observed=(gap,))
    files = write_report(replace(empty, deployment=deployment), into=tmp_path)
    page = Page(files.html.read_text(encoding="utf-8")).text
    for text in (page, files.markdown.read_text(encoding="utf-8")):
        assert "load-not-reconciled" in text
        assert "this vLLM has no `load_weights`" in text
    skipped = cases(files.junit)["load-not-reconciled"].find("skipped")
    assert skipped is not None
