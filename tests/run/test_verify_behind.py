"""verify runs behind the writer: files are read while others are made, with the same report."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import making, pipeline
from harness.artifacts import Checkpoint, RunRecord
from harness.errors import ReasonCode
from harness.export import writer
from harness.preflight import preflight
from harness.recipe import Request
from harness.runs import run_job
from harness.verify import ahead, verify


@pytest.fixture
def made(
    calibration_jsonl: Path,
    tiny_qwen3_5_moe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Callable[[], RunRecord]:
    """Return a function that makes a checkpoint of many files, all of which are read behind."""
    monkeypatch.setattr(ahead, "LEAST_BYTES", 0)
    monkeypatch.setattr(writer, "shard_bytes", lambda _: 50_000)
    caplog.set_level(logging.INFO, "harness.verify")

    def make() -> RunRecord:
        asked: dict[str, Any] = {"calib_size": 12, "calib_seq": 64, "device": "cpu"}
        request = Request(
            model=str(tiny_qwen3_5_moe), calib_data=str(calibration_jsonl), qformat="nvfp4", **asked
        )
        job = preflight(request, into=tmp_path / "run", scored=False)
        return run_job(job, into=tmp_path / "run", work=pipeline.make_checkpoint)[1]

    return make


def test_the_report_is_that_of_verify_after_it(
    made: Callable[[], RunRecord],
    tmp_path: Path,
    tiny_qwen3_5_moe: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = made()
    folder = tmp_path / "run" / "checkpoint"
    assert record.integrity == verify(folder, source=tiny_qwen3_5_moe)
    count = len(list(folder.glob("*.safetensors")))
    assert count > 3
    assert f"verify: {count} of {count} files were read before" in caplog.messages


def test_a_checkpoint_that_is_changed_between_writing_and_verifying_is_found(
    made: Callable[[], RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed = making.complete

    def tampered(*arguments: Any) -> Checkpoint:  # noqa: ANN401 - as complete takes them
        checkpoint = completed(*arguments)
        path = min((tmp_path / "run" / "checkpoint").glob("*.safetensors"))
        with path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x7f")
        return checkpoint

    monkeypatch.setattr(pipeline, "complete", tampered)
    failure = made().failure
    assert failure is not None
    assert failure.reason_code is ReasonCode.EVIDENCE_CHANGED
