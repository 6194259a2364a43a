"""Offline runs of Weights & Biases, written by its own library and sent nowhere."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.nightly.conftest import Stage, runs, stage
from tests.nightly.test_typed import nightly, played
from tests.tiers import slow

__all__ = ["played", "runs", "stage"]
BLOCK, HEAD, FULL, LAST = 32768, 7, 1, 4


class Told(NamedTuple):
    """What one offline run says."""

    config: dict[str, Any]
    metrics: dict[str, Any]
    files: set[str]


@pytest.fixture
@slow("starts a process of Weights & Biases for each run")
def told(played: Stage, tmp_path: Path) -> Path:
    """The folder that a night of two cells was written to."""
    pytest.importorskip("wandb", reason="needs the extra `wandb`")
    played.cells({"a": "go", "b": "no-go"})
    done = nightly(played, "--wandb", tmp_path / "tracked")
    assert done.code == 4
    assert "has 2 runs of 'm'" in done.err
    return tmp_path / "tracked"


def written(folder: Path) -> dict[str, Told]:
    """Return what each run says, by its cell."""
    found = [read(run) for run in folder.glob("wandb/offline-run-*")]
    return {one.config["cell"]: one for one in found}


def read(run: Path) -> Told:
    from wandb.proto.wandb_internal_pb2 import Record  # noqa: PLC0415 -- an extra

    (file,) = run.glob("run-*.wandb")
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for piece in pieces(file.read_bytes()):
        record = Record.FromString(piece)
        config |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
        items = (*record.history.item, *record.summary.update)
        metrics |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}
    return Told(config, metrics, {one.name for one in (run / "files").iterdir()})


def pieces(content: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, behind a head of seven bytes."""
    place, whole = 7, b""
    while place + HEAD <= len(content):
        if BLOCK - place % BLOCK < HEAD:
            place += BLOCK - place % BLOCK
        length, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + HEAD : place + HEAD + length]
        place += HEAD + length
        if kind in {FULL, LAST}:
            yield whole
            whole = b""


def test_each_cell_is_a_run_with_its_verdict(told: Path) -> None:
    found = {cell: one.config["verdict"] for cell, one in written(told).items()}
    assert found == {"a": "GO", "b": "NO-GO"}


def test_digests_are_the_configuration_and_the_report_lies_beside(told: Path) -> None:
    one = written(told)["a"]
    assert len(one.config["sha256.recipe"]) == 64
    assert one.files == {"report.html", "report.md"}


def test_what_is_followed_is_a_metric(told: Path) -> None:
    metrics = written(told)["a"].metrics
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_typed_again_nothing_is_written_twice(told: Path, played: Stage) -> None:
    before = sorted(path.name for path in told.glob("wandb/*"))
    assert nightly(played, "--collect", "--wandb", told).code == 4
    assert sorted(path.name for path in told.glob("wandb/*")) == before


def test_a_folder_that_cannot_be_written_changes_no_exit_code(told: Path, played: Stage) -> None:
    (told / "file").write_text("no folder")
    done = nightly(played, "--collect", "--wandb", told / "file")
    assert done.code == 4
    (line,) = [one for one in done.err.splitlines() if one.startswith("wandb:")]
    assert "was not told" in line
