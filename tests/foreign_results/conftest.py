"""Real outputs of other tools, of two versions of one small model, and ways to change them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.typed import Done, typed

DATA = Path(__file__).parent / "data"


@pytest.fixture
def arms(tmp_path: Path) -> tuple[Path, Path]:
    """lm-eval 0.4.13's own output: 20 products and 20 comparisons, each arm a noisy canary."""
    for arm in ("baseline", "candidate"):
        shutil.copytree(DATA / "lm_eval" / arm, tmp_path / arm)
    return tmp_path / "baseline", tmp_path / "candidate"


def judge(*arguments: object) -> Done:
    """Type `harness judge` and return its ending, as JSON."""
    return typed("judge", *arguments, "--json")


def refusal(*arguments: object) -> str:
    """Return the one line with which `harness judge` refuses, with exit 2."""
    done = typed("judge", *arguments)
    assert done.code == 2, done.out
    assert done.err.startswith("harness: ")
    assert done.err.count("\n") == 1
    return done.err


def results_of(folder: Path) -> Path:
    (found,) = folder.glob("results_*.json")
    return found


def samples_of(folder: Path, task: str) -> Path:
    (found,) = folder.glob(f"samples_{task}_*.jsonl")
    return found


def change_results(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = results_of(folder)
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def change_samples(
    folder: Path, task: str, change: Callable[[list[dict[str, Any]]], object], *, told: bool = True
) -> None:
    """Change samples as another run of lm-eval would have: without the hash and mean of the first.

    With `told` false the results still say what they said.
    """
    file = samples_of(folder, task)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def forget(values: dict[str, Any]) -> None:
        values["task_hashes"].pop(task, None)
        values["results"].pop(task)
        count = len({line["doc_id"] for line in lines})
        values["n-samples"][task] = {"original": count, "effective": count}

    if told:
        change_results(folder, forget)
