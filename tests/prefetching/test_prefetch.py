"""`harness prefetch` from a Hub, and a run from its folder where no route leads anywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hub import Hub, serving
from tests.prefetching.stocked import MODEL, own_files, stock
from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]
Done = subprocess.CompletedProcess[str]
ALONE = ("unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""Starts a command in a network of its own: a loopback interface, no route."""


def typed(folder: Path, *arguments: object, before: tuple[str, ...] = (), **more: str) -> Done:
    """Type a command as somebody who has nothing in any cache."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables = {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(folder / "hf-home"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HARNESS_BASELINES": str(folder / "baselines"),
    }
    return subprocess.run(
        [*before, sys.executable, "-m", "harness", *map(str, arguments)],
        env=own | variables | more,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


class Filled:
    """A folder that was filled from a Hub, which is gone then, and how."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root, self.kept = root, root / "kept"
        self.suite, self.tasks = own_files(root / "own")
        self.asked_for = (
            *("nvfp4", self.suite, "--model", MODEL, "--tasks", self.tasks),
            *("--calib-data", "wikitext", "--calib-size", "64"),
        )
        self.done = typed(
            root, "prefetch", *self.asked_for, "--out", self.kept, HF_ENDPOINT=hub.url
        )


@pytest.fixture(scope="module")
@slow("downloads a model and data sets from a server of its own, and loads them twice")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    root = tmp_path_factory.mktemp("prefetch")
    stock(root / "hub")
    with serving(root / "hub") as hub:
        made = Filled(root, hub)
    assert made.done.returncode == 0, made.done.stderr
    return made


def test_all_that_was_fetched_is_in_the_manifest(filled: Filled) -> None:
    manifest = json.loads((filled.kept / "manifest.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in manifest["models"]] == [MODEL]
    assert manifest["tasks"] == ["hub_sums"]
    assert [texts["num_texts"] for texts in manifest["texts"]] == [64]
    paths = {file["path"] for file in manifest["files"]}
    assert {"suite/far.yaml", "models/1/config.json", "calibration/wikitext.jsonl"} <= paths


def test_the_command_for_the_other_side_is_printed(filled: Filled) -> None:
    last = filled.done.stdout.splitlines()[-1]
    assert last.startswith(f"there: harness e2e --model={MODEL} --qformat=nvfp4 --suite=")
    assert last.endswith(f"--offline {filled.kept}")


def test_a_folder_that_was_spoiled_is_found_by_check(filled: Filled, tmp_path: Path) -> None:
    spoiled = tmp_path / "kept"
    shutil.copytree(filled.kept, spoiled)
    arrow = next(spoiled.rglob("*.arrow"))
    content = bytearray(arrow.read_bytes())
    content[-1] ^= 1
    arrow.write_bytes(content)
    done = typed(tmp_path, "prefetch", *filled.asked_for, "--out", spoiled, "--check")
    assert done.returncode == 2
    assert f"'{arrow}' has not the contents that were fetched" in done.stderr


def test_a_model_that_the_hub_has_not_is_told(filled: Filled, tmp_path: Path) -> None:
    with serving(filled.root / "hub") as hub:
        arguments = ("nvfp4", "drill", "--model", "tester/fish", "--out", tmp_path / "kept")
        done = typed(tmp_path, "prefetch", *arguments, HF_ENDPOINT=hub.url)
    assert done.returncode == 2
    assert "the Hub does not give 'tester/fish'" in done.stderr
    assert not (tmp_path / "kept/manifest.json").exists()


@pytest.fixture(scope="module")
@slow("runs from recipe to verdict in a network of its own")
def far(filled: Filled, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The printed command, typed on a machine that has the folder alone, and no route."""
    probe = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no network namespace can be made here: {probe.stderr.strip()}")
    there = tmp_path_factory.mktemp("there")
    moved = there / "moved"
    shutil.copytree(filled.kept, moved)
    said = filled.done.stdout.splitlines()[-1].removeprefix("there: harness ")
    arguments = said.replace(str(filled.kept), str(moved)).split()
    return typed(there, *arguments, "--engine", "reference", "--run-dir", "run", before=ALONE)


def test_a_run_without_a_route_comes_to_its_verdict(far: Done) -> None:
    assert far.returncode in {0, 4, 5}, far.stderr
    assert "hub_sums" in far.stdout


def test_without_a_route_what_was_not_fetched_is_refused_by_name(
    filled: Filled, far: Done, tmp_path: Path
) -> None:
    assert far.stdout
    arguments = ("e2e", "--model", "tester/fish", "--qformat", "nvfp4", "--suite", "drill")
    done = typed(tmp_path, *arguments, "--offline", filled.kept, before=ALONE)
    assert done.returncode == 2
    assert "'tester/fish' is not among the models in" in done.stderr
