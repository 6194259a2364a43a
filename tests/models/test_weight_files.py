"""Which files of a folder are its weights, and which merely lie there."""

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness.models import INDEX, digest_folder, find_weights
from harness.models.weight_files import SINGLE

Lay = Callable[..., Path]


def lay_into(folder: Path, *files: str, indexed: tuple[str, ...] = ()) -> Path:
    """Lay files of weights into a new folder, with an index of some of them."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for file in files:
        save_file({f"{file}.weight": torch.ones(2, 2)}, folder / file)
    if indexed:
        weight_map = {f"{file}.weight": file for file in indexed}
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.fixture
def lay(tmp_path: Path) -> Lay:
    return partial(lay_into, tmp_path / "model")


def test_the_files_of_the_index_are_the_weights_and_no_others(lay: Lay) -> None:
    folder = lay(
        "a.safetensors", "b.safetensors", "adapter.safetensors", indexed=("a.safetensors",)
    )
    found = find_weights(folder)
    assert found.files == ("a.safetensors",)
    assert found.stray == ("adapter.safetensors", "b.safetensors")


def test_without_an_index_it_is_the_single_file(lay: Lay) -> None:
    found = find_weights(lay("model.safetensors", "adapter_model.safetensors"))
    assert found.files == ("model.safetensors",)
    assert "vLLM reads both" in found.stray_lines[0]


def test_without_index_and_single_file_all_files_count(lay: Lay) -> None:
    found = find_weights(lay("a.safetensors", "b.safetensors"))
    assert found.files == ("a.safetensors", "b.safetensors")
    assert not found.stray


def test_a_broken_index_leaves_no_file_out(lay: Lay) -> None:
    folder = lay("a.safetensors", "b.safetensors", indexed=("a.safetensors",))
    (folder / INDEX).write_text("{")
    found = find_weights(folder)
    assert found.files == ("a.safetensors", "b.safetensors")
    assert found.problem is not None


def test_a_file_that_the_index_misses_is_not_among_those_that_are_there(lay: Lay) -> None:
    folder = lay("a.safetensors", indexed=("a.safetensors", "gone.safetensors"))
    assert find_weights(folder).files == ("a.safetensors",)


def test_hidden_files_are_no_weights(lay: Lay) -> None:
    assert find_weights(lay("model.safetensors", "._model.safetensors")).stray == ()


def test_vllm_is_said_to_read_consolidated_files_first(lay: Lay) -> None:
    folder = lay("a.safetensors", "consolidated.safetensors", indexed=("a.safetensors",))
    line = find_weights(folder).stray_lines[0]
    assert f"is not in {INDEX}, but vLLM's default load format reads it" in line


def test_the_digest_leaves_out_what_the_index_does(lay: Lay) -> None:
    folder = lay("a.safetensors", indexed=("a.safetensors",))
    before = digest_folder(folder)
    save_file({"x": torch.ones(1)}, folder / "adapter.safetensors")
    assert digest_folder(folder) == before


@pytest.mark.parametrize(
    ("name", "indexed"),
    [
        ("consolidated.safetensors", ("a.safetensors",)),
        ("a.safetensors", ("a.safetensors",)),
        ("adapter.safetensors", ()),
    ],
    ids=["vLLM reads it first", "the index names it", "there is no index"],
)
def test_the_digest_covers_what_an_engine_may_read(
    lay: Lay, name: str, indexed: tuple[str, ...]
) -> None:
    folder = lay("a.safetensors", "model.safetensors", indexed=indexed)
    save_file({"a.safetensors.weight": torch.ones(2, 2)}, folder / name)
    before = digest_folder(folder)
    save_file({"a.safetensors.weight": torch.zeros(2, 2)}, folder / name)
    assert digest_folder(folder) != before


def test_an_index_that_goes_away_changes_the_digest(lay: Lay) -> None:
    folder = lay("a.safetensors", "b.safetensors", indexed=("a.safetensors",))
    before = digest_folder(folder)
    (folder / INDEX).unlink()
    assert digest_folder(folder) != before


ASK = """
import json, pathlib, sys
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
for folder, format in map(json.loads, sys.argv[1:]):
    loader = DefaultModelLoader(LoadConfig(load_format=format))
    files = loader._prepare_weights(folder, None, None, True, None)[1]
    print("FILES", json.dumps(sorted(pathlib.Path(file).name for file in files)))
"""


def test_vllm_reads_what_is_said_of_it(vllm_python: Path, tmp_path: Path) -> None:
    (shard, adapter), other = ("a.safetensors", "adapter.safetensors"), "consolidated.safetensors"
    laid = [
        (lay_into(tmp_path / "1", shard, adapter, indexed=(shard,)), "auto", [shard]),
        (lay_into(tmp_path / "2", shard, other, indexed=(shard,)), "auto", [other]),
        (lay_into(tmp_path / "3", shard, other, indexed=(shard,)), "safetensors", [shard]),
        (lay_into(tmp_path / "4", SINGLE, adapter), "auto", [adapter, SINGLE]),
    ]
    asked = [json.dumps([str(folder), form]) for folder, form, _ in laid]
    done = subprocess.run(
        [vllm_python, "-c", ASK, *asked], capture_output=True, text=True, check=True
    )
    lines = [line[6:] for line in done.stdout.splitlines() if line.startswith("FILES ")]
    assert list(map(json.loads, lines)) == [files for _, _, files in laid]
