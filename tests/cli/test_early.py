"""What a gate's candidate is read beside before the baseline is opened."""

import logging
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from harness.cli.early import candidate_read
from harness.request import Request
from harness.verify import ahead, verify
from tests.verify.test_reading import many_weights

COMMIT = "1f" * 20


@pytest.fixture(autouse=True)
def read_however_small(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ahead, "LEAST_BYTES", 0)
    caplog.set_level(logging.INFO, "harness.verify")


def test_a_model_that_was_downloaded_before_is_found_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    candidate, source = many_weights(tmp_path, 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    kept = tmp_path / "models--owner--name"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text(COMMIT)
    cached = Path(shutil.copytree(source, kept / "snapshots" / COMMIT))
    with candidate_read(Request(model="owner/name"), candidate) as reading:
        verify(candidate, source=cached, before=reading)
    assert "verify: 2 of 2 files were read before" in caplog.messages


def test_a_model_that_is_not_here_yet_ends_nothing(tmp_path: Path) -> None:
    candidate, source = many_weights(tmp_path, 2)
    with candidate_read(Request(model="owner/not-here"), candidate) as reading:
        assert verify(candidate, source=source, before=reading) == verify(candidate, source=source)
