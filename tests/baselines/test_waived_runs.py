"""Waivers on real runs: a checkpoint whose files changed after the export, judged on the canary."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import pytest
import yaml

from harness.models import digest_folder
from tests.typed import Done, typed

CHECK = "files-match-manifest"
REASON = "the readme was added by hand"


class Tampered(NamedTuple):
    checkpoint: Path
    baseline: Path
    suite: Path


@pytest.fixture(scope="module")
def tampered(tiny_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Tampered:
    """A good checkpoint of which one file is not as it was exported, and a baseline for it."""
    folder = tmp_path_factory.mktemp("tampered")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_BASELINES", str(folder / "store"))
        options = ("--suite", tiny_suite, "--calib-size", 64, "--engine", "reference")
        made = typed(
            *("e2e", "--model", "canary", "--qformat", "nvfp4", "--run-dir", folder / "run"),
            *options,
        )
        assert made.code == 0, made.err
    checkpoint = folder / "run" / "checkpoint"
    config = checkpoint / "generation_config.json"
    config.write_text(config.read_text() + "\n")
    return Tampered(checkpoint, folder / "run", tiny_suite)


def gate(tampered: Tampered, run_dir: Path, *more: object) -> tuple[object, ...]:
    options = ("--suite", tampered.suite, "--engine", "reference", "--numerics", "declared")
    arguments = ("gate", tampered.checkpoint, "--baseline", tampered.baseline, *options)
    return (*arguments, "--run-dir", run_dir, *more)


def write_waivers(path: Path, checkpoint: str, **changes: object) -> Path:
    waiver = {
        "check": CHECK,
        "checkpoint": checkpoint,
        "reason": REASON,
        "approver": "release manager",
        "expires": "2999-12-31",
    }
    path.write_text(yaml.safe_dump({"version": 1, "waivers": [waiver | changes]}))
    return path


@pytest.fixture(scope="module")
def waived(tampered: Tampered, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("waived")
    waivers = write_waivers(folder / "waivers.yaml", digest_folder(tampered.checkpoint))
    done = typed(*gate(tampered, folder / "run", "--waivers", waivers))
    assert done.code == 0, done.out + done.err
    return folder / "run", done


def test_without_a_waiver_it_is_no_go_and_says_what_one_would_name(
    tampered: Tampered, tmp_path: Path
) -> None:
    """A file of waivers that lies in the working directory is not looked for."""
    write_waivers(tmp_path / "waivers.yaml", digest_folder(tampered.checkpoint))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = typed(*gate(tampered, tmp_path / "run"))
    assert done.code == 4
    assert f"failed checks: {CHECK}\n" in done.out
    assert f"as a waiver names it: {digest_folder(tampered.checkpoint)}" in done.out
    verified = typed("verify", tampered.checkpoint)
    assert f"as a waiver names it: {digest_folder(tampered.checkpoint)}" in verified.out


def test_a_waived_check_ends_go_with_waivers(waived: tuple[Path, Done]) -> None:
    _, done = waived
    assert f"\nGO WITH WAIVERS: {CHECK} (release manager, until 2999-12-31); " in done.out
    assert f"waived: {CHECK}, by release manager until 2999-12-31: {REASON}" in done.out
    assert "reason codes: waived, non-inferior" in done.out


def test_every_report_of_a_waived_run_shows_the_waiver(waived: tuple[Path, Done]) -> None:
    run_dir, _ = waived
    verdict = json.loads((run_dir / "verdict.json").read_text())
    assert verdict["decision"] == "GO"
    assert verdict["reason_codes"][0] == "waived"
    assert verdict["waived"] == [
        {
            "check": CHECK,
            "reason": REASON,
            "approver": "release manager",
            "expires": "2999-12-31",
        }
    ]
    for name in ("report.md", "report.html"):
        text = (run_dir / name).read_text()
        assert "GO WITH WAIVERS" in text
        assert REASON in text
    junit = ET.parse(run_dir / "junit.xml").getroot()  # noqa: S314 - written by the run itself
    (case,) = [case for case in junit.iter("testcase") if case.get("name") == CHECK]
    (skipped,) = case.findall("skipped")
    assert skipped.get("type") == "waived"
    assert "release manager" in str(skipped.text)
    assert junit.findall(".//failure") == []


def test_reports_that_are_written_again_show_the_waiver(
    waived: tuple[Path, Done], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(waived[0], tmp_path / "run"))
    (copy / "report.md").unlink()
    assert typed("report", copy).code == 0
    assert "GO WITH WAIVERS" in (copy / "report.md").read_text()
    assert json.loads(typed("status", copy, "--json").out)["ending"] == "GO WITH WAIVERS"


def test_the_waiver_is_part_of_what_was_judged(
    waived: tuple[Path, Done], tampered: Tampered, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(waived[0], tmp_path / "run"))
    done = typed(*gate(tampered, copy, "--json"))
    assert done.code == 4
    assert json.loads(done.out)["reason_codes"] == ["integrity-failed"]


def test_a_waiver_of_another_checkpoint_changes_nothing_and_says_so(
    tampered: Tampered, tmp_path: Path
) -> None:
    waivers = write_waivers(tmp_path / "waivers.yaml", "0" * 64)
    done = typed(*gate(tampered, tmp_path / "run", "--waivers", waivers))
    assert done.code == 4
    words = f"waiver of {CHECK} by release manager until 2999-12-31 does not apply: it is for"
    assert f"{words} checkpoint 000000000000, this is " in done.out
    assert words in (tmp_path / "run" / "report.md").read_text()


def test_a_waiver_of_another_check_changes_nothing(tampered: Tampered, tmp_path: Path) -> None:
    digest = digest_folder(tampered.checkpoint)
    waivers = write_waivers(tmp_path / "waivers.yaml", digest, check="scales-finite")
    done = typed(*gate(tampered, tmp_path / "run", "--waivers", waivers))
    assert done.code == 4
    assert "was not used: the check did not fail, or was not run" in done.out


def test_a_waiver_lifts_no_other_reason(
    waived: tuple[Path, Done], tampered: Tampered, tmp_path: Path
) -> None:
    """The same run without verification of files is as undecided with the waiver as without."""
    copy = Path(shutil.copytree(waived[0], tmp_path / "run"))
    waivers = write_waivers(tmp_path / "waivers.yaml", digest_folder(tampered.checkpoint))
    done = typed(*gate(tampered, copy, "--waivers", waivers, "--skip-verify", "--json"))
    assert done.code == 5
    assert json.loads(done.out)["reason_codes"] == ["verify-skipped"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"check": "canary_add"}, "the waiver of 'canary_add' names no check that can be waived"),
    ({"check": "score-missing"}, "the waiver of 'score-missing' names no check"),
    ({"check": "smoke-requests"}, "the waiver of 'smoke-requests' names no check"),
    ({"check": "load-report-missing"}, "the waiver of 'load-report-missing' names no check"),
    ({"expires": "2020-01-31"}, "expired on 2020-01-31"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED)
def test_a_waiver_that_can_never_apply_ends_the_run_before_it_starts(
    tampered: Tampered, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    waivers = write_waivers(tmp_path / "waivers.yaml", "0" * 64, **change)
    done = typed(*gate(tampered, tmp_path / "run", "--waivers", waivers, "--json"))
    assert done.code == 2
    assert words in done.line()
    assert json.loads(done.out)["reason_codes"] == ["bad-waivers"]
    assert not (tmp_path / "run").exists()


def test_the_second_run_of_the_baseline_is_in_the_verdict(tampered: Tampered) -> None:
    verdict = json.loads((tampered.baseline / "verdict.json").read_text())
    again = tampered.baseline / "baseline" / "again" / "scorecard.json"
    assert json.loads(again.read_text())["tasks"][0]["num_items"] == 30
    assert verdict["rerun_flip_rate"] is not None
