"""The table of algorithms: what is measured, what is kept, and that a run goes on."""

import sys
from pathlib import Path

import pytest

from scripts import algorithms_table
from scripts.nearness import Score, Source, texts_of
from tests.scripts.in_process import harness_in_process

_SMALL = ["--texts", "2", "--tokens", "24", "--calib-size", "2"]


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[list[str]]:
    """Type the script; return the commands of harness that it ran."""
    monkeypatch.setattr(sys, "argv", ["algorithms_table", *words])
    with harness_in_process(monkeypatch) as commands:
        assert algorithms_table.main() == 0
    return commands


def test_a_row_has_its_algorithm_s_loss_and_is_made_once(
    tiny_models: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(tiny_models["qwen3"]), "--out", str(tmp_path), *_SMALL]
    words += ["--formats", "w4a16_nvfp4", "--algorithms", "max", "--seeds", "2"]
    made = run(monkeypatch, *words)
    assert [command[0] for command in made] == ["quantize"] * 2
    table = capsys.readouterr().out.splitlines()[-1]
    assert table.startswith("| w4a16_nvfp4 | ")
    assert float(table.split("|")[3].split("±")[0]) > 0
    assert not run(monkeypatch, *words)
    assert capsys.readouterr().out.splitlines()[-1] == table


def test_a_model_compared_with_itself_has_lost_nothing(tiny_models: dict[str, Path]) -> None:
    model = tiny_models["qwen3"]
    source = Source(model, texts_of(str(model)).held_out, number=2, length=24, device="cpu")
    assert list(source.compared(model)) == [Score(0, 0, 1)] * 2


def test_texts_that_are_too_short_are_joined(tiny_models: dict[str, Path]) -> None:
    source = Source(tiny_models["qwen3"], ["abcde"] * 20, number=3, length=24, device="cpu")
    assert len(list(source.compared(tiny_models["qwen3"]))) == 3


def test_no_text_both_calibrates_and_measures() -> None:
    for model in ("canary", "another"):
        texts = texts_of(model)
        assert set(texts.held_out).isdisjoint(texts.calibrating)
        assert len(texts.held_out) > 100
