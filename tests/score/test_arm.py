"""A folder of scores is read back, or what lies there in its place is said."""

import json
from pathlib import Path

import pytest

from harness.errors import RunDirectoryError
from harness.score import read_arm


def refused(folder: Path) -> str:
    with pytest.raises(RunDirectoryError) as error:
        read_arm(folder)
    assert "--fresh" not in str(error.value)
    assert "Score both arms with `harness score`" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "file",
    [
        "results_2026-01-01T00-00-00.json",
        "results.json",
        "model__name/results_2026-01-01T00-00-00.json",
        "samples_gsm8k_2026-01-01T00-00-00.jsonl",
    ],
)
def test_results_of_lm_eval_are_named(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"results": {"gsm8k": {"exact_match,strict-match": 0.9}}}))
    assert "holds results of lm-eval" in refused(tmp_path)


def test_a_folder_of_nothing_is_named(tmp_path: Path) -> None:
    assert "holds no scorecard.json of harness." in refused(tmp_path)


@pytest.mark.parametrize("name", ["nothing", "file.json"])
def test_what_is_no_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file.json").write_text("{}")
    assert f"{name}' is no folder" in refused(tmp_path / name)


def test_a_folder_that_holds_the_arms_folder_names_it(tmp_path: Path) -> None:
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "scorecard.json").write_text("{}")
    assert f"but '{tmp_path / 'baseline'}' does" in refused(tmp_path)


def test_a_scorecard_that_harness_did_not_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "scorecard.json").write_text("{}")
    assert "scorecard.json' is no Scorecard" in refused(tmp_path)
