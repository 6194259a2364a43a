"""`harness nightly` as it is typed for a cluster."""

import time
from pathlib import Path

import pytest
import yaml

from harness.nightly.waiting import read_wait
from tests.nightly.conftest import Stage
from tests.nightly.test_matrix import CELL, write
from tests.nightly.test_typed import nightly, played
from tests.typed import typed

__all__ = ["played"]

KUBERNETES = ("--set", f"image=r/h@sha256:{'0' * 64}", "--set", "claim=c")


def test_the_script_for_slurm_takes_the_night_when_it_is_started(tmp_path: Path) -> None:
    matrix = write(tmp_path, cells=[CELL])
    done = typed("nightly", matrix, "--as", "slurm", "--set", "partition=gpu", "--out", "nights")
    assert done.code == 0
    assert '"${1:-$(date -u +%F)}"' in done.out
    assert "--partition=gpu" in done.out
    named = typed("nightly", matrix, "--as", "slurm", "--night", "n-1")
    assert 'HARNESS_NIGHT="n-1"' in named.out


def test_the_jobs_for_kubernetes_are_of_the_cells_that_are_meant(tmp_path: Path) -> None:
    cells = [CELL | {"name": name} for name in "abc"]
    done = typed(
        *("nightly", write(tmp_path, cells=cells), "--as", "kubernetes", *KUBERNETES),
        *("--set", f"mount={tmp_path}", "--out", tmp_path / "out", "--only", "b"),
    )
    made = list(yaml.safe_load_all(done.out))
    assert [job["metadata"]["annotations"] for job in made] == [
        {"nightly.harness/cell": "b"},
        {"nightly.harness/role": "collect"},
    ]
    collects = made[1]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert collects[2:5] == ["--collect", "--only", "b"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "lsf"), "--as lsf: there is slurm, kubernetes and github."),
        (("--as", "kubernetes"), "Kubernetes has to be told image"),
        (("--as", "slurm", "--set", "array=1"), "--set array: is set by harness"),
        (("--collect", "--wait", "long"), "--wait 'long' is no time"),
    ],
)
def test_what_a_cluster_cannot_be_told_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = typed("nightly", write(tmp_path, cells=[CELL]), *words, "--out", tmp_path / "out")
    assert done.code == 2
    assert said in done.err


def test_a_time_to_wait_has_a_unit() -> None:
    assert [read_wait(text) for text in ("5s", "90m", "24h")] == [5.0, 5400.0, 86400.0]


@pytest.mark.parametrize("play", ["refused", "disk"])
def test_who_collects_waits_for_nothing_where_all_have_ended(played: Stage, play: str) -> None:
    played.cells({"a": "go", "b": play}, retries=1)
    nightly(played)
    before = time.monotonic()
    assert nightly(played, "--collect", "--wait", "9h").code == 3
    assert time.monotonic() - before < read_wait("1h")


def test_a_cell_that_does_not_end_in_time_is_not_run(played: Stage) -> None:
    played.cells({"a": "go", "b": "go"})
    nightly(played, "--only", "a")
    done = nightly(played, "--collect", "--wait", "0s")
    assert done.code == 3
    assert "b has not ended, and is waited for no more" in done.err
