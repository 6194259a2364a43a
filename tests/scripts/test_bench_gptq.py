"""GPTQ beside its peers: the script takes turns, and says ratios of the least times."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.bench import gptq
from tests.scripts.in_process import harness_in_process


def test_it_runs_on_a_small_model(
    tiny_models: dict[str, Path],
    calibration_jsonl: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--model", str(tiny_models["qwen3"]), "--texts", str(calibration_jsonl)]
    words += ["--samples", "2", "--seq", "16", "--rounds", "1", "--into", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gptq", *words])
    with harness_in_process(monkeypatch):
        gptq.main()
    name, _, seconds = capsys.readouterr().out.splitlines()[-1].partition(": ")
    assert name == "harness, s"
    assert float(seconds) > 0


def test_a_peer_that_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def seconds(name: str, *_: object) -> float:
        if name == "modelopt":
            raise subprocess.CalledProcessError(1, name)
        return 3.0

    monkeypatch.setattr(gptq, "_seconds", seconds)
    words = ["--model", "m", "--texts", "t", "--peers", "modelopt,llmcompressor"]
    monkeypatch.setattr(sys, "argv", ["gptq", *words])
    gptq.main()
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "harness, s: 3.00",
        "llmcompressor, s: 3.00",
        "llmcompressor's time over harness's: 1.0",
    ]


def test_ratios_are_of_the_least_of_all_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    took = iter([2.0, 30.0, 9.0, 1.0, 50.0, 8.0])
    monkeypatch.setattr(gptq, "_seconds", lambda *_: next(took))
    words = ["--model", "m", "--texts", "t", "--peers", "modelopt,llmcompressor"]
    monkeypatch.setattr(sys, "argv", ["gptq", *words])
    gptq.main()
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "modelopt's time over harness's: 30.0",
        "llmcompressor's time over harness's: 8.0",
    ]
