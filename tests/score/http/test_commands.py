"""`harness score URL`, typed: whatever a server does wrong ends with exit 3 and one line."""

from pathlib import Path

import pytest
import yaml

from tests.score.http.fake import Script
from tests.score.http.test_proof import ANSWERS, READINGS
from tests.typed import typed

pytestmark = pytest.mark.usefixtures("tasks", "server")


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    """Return a suite of one task that is generated and one that is chosen."""
    common = {"tier": "critical", "margin": 0.9, "flip_rate": 0.1, "num_fewshot": 0}
    tasks = [
        common | {"name": "tiny_next", "items": 4, "metric": "exact_match", "filter": "none"},
        common | {"name": "tiny_choice", "items": 2, "metric": "acc", "filter": "none"},
    ]
    tasks[0]["chance"], tasks[1]["chance"] = 0.0, 0.5
    values = {
        "version": 1,
        "name": "tiny",
        "tasks": tasks,
        "max_model_len": 32,
        "apply_chat_template": False,
    }
    values |= {"seed": 1, "batch_size": 3, "confidence": 0.95, "max_truncated": 0.1}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def test_a_sound_server_is_scored(base_url: str, suite_file: Path, tmp_path: Path) -> None:
    done = typed("score", base_url, "--suite", suite_file, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    assert [task["value"] for task in done.json["tasks"]] == [0.75, 0.5]


def test_a_server_that_stalls_ends_with_exit_3_and_one_line(
    base_url: str,
    suite_file: Path,
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.score.client._SECONDS_A_TOKEN", 0.0)
    script.always, script.answers_proof = "hang", False
    done = typed("score", base_url, "--suite", suite_file, "--out", tmp_path / "out")
    assert done.code == 3
    assert "TimeoutError" in done.line()


@pytest.mark.parametrize("fault", sorted(ANSWERS | READINGS))
def test_a_faulty_server_ends_with_exit_3_and_one_line(
    base_url: str, suite_file: Path, tmp_path: Path, script: Script, fault: str
) -> None:
    script.always, script.answers_proof = fault, False
    done = typed("score", base_url, "--suite", suite_file, "--out", tmp_path / "out")
    assert done.code == 3
    assert "does not prove that its answers can be scored" in done.line()
    assert "Traceback" not in done.err
    assert not (tmp_path / "out" / "scorecard.json").exists()
