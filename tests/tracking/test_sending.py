"""A tracker that is down, slow or broken costs one line, in which no secret stands."""

import logging
from pathlib import Path

import pytest

from harness.errors import PrerequisiteError
from harness.tracking import Trackers, check_trackers, sending, track, tracked_run
from tests.nights.rows import night_row

SECRET = "hunter2hunter2"  # noqa: S105 -- made up
TARGET = f"http://me:{SECRET}@127.0.0.1:1/path?token={SECRET}"


def told(
    child: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> str:
    """Return the one line that is logged where the process that sends does what `child` says."""
    (folder / "child.py").write_text(child)
    monkeypatch.setattr(sending, "_CHILD", folder / "child.py")
    with caplog.at_level(logging.INFO, logger="harness.tracking"):
        track(Trackers(mlflow=TARGET), "m", [tracked_run(night_row("a", "n1"), folder)])
    (line,) = caplog.messages
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("import sys; sys.exit('no such library')", "its process ended: no such library"),
        ("import os; os.abort()", "its process ended: it said nothing"),
        ("import os; os.kill(os.getpid(), 9)", "its process ended: it said nothing"),
    ],
)
def test_a_process_that_dies_is_one_line(
    child: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert said in told(child, tmp_path, monkeypatch, caplog)


def test_a_tracker_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sending, "_MOST_S", 0.5)
    line = told("import time; time.sleep(1000)", tmp_path, monkeypatch, caplog)
    assert "it took more than" in line


def test_no_secret_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-mine")
    child = (
        "import json, os, pathlib, sys\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "target = json.loads((folder / 'order.json').read_text())['target']\n"
        "said = f'{target} refused {os.environ[\"MLFLOW_TRACKING_TOKEN\"]} of ' + target[7:24]\n"
        "(folder / 'done.json').write_text(json.dumps({'failure': said}))\n"
    )
    line = told(child, tmp_path, monkeypatch, caplog)
    assert "http://127.0.0.1:1/path refused *** of ***" in line
    assert not {SECRET, "token-of-mine"} & set(line.split())
    assert "hunter" not in line


def test_a_tracker_whose_package_is_missing_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sending, "find_spec", lambda _: None)
    with pytest.raises(PrerequisiteError, match=r"pip install 'harness-ptq-gate\[wandb\]'"):
        check_trackers(Trackers(wandb=Path("runs")))
