"""The table of families, on one family of each hard kind: nothing in it may say no."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.family_table.measure import UNQUANTIZED, Place
from scripts.family_table.ours import FORMATS
from scripts.family_table.table import HEAD, NO, UNASKABLE, cells_of, markdown, write
from tests.tiers import slow

FAMILIES = (
    "llama",
    "phi3",
    "gemma3_text",
    "deepseek_v3",
    "gemma4_moe",
    "gpt_oss",
    "granitemoehybrid",
    "jamba",
    "llama4_text",
    "nemotron_h",
    "qwen3_next",
    "qwen3_vl_moe",
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
@slow("quantizes twelve families several times, by Model-Optimizer too, and loads them in vLLM")
def measured(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> Path:
    """The folder of all answers."""
    work = tmp_path_factory.mktemp("table")
    steps = ["harness", "vllm"]
    steps += ["peer"] if importlib.util.find_spec("modelopt") else []
    command = [sys.executable, "-m", "scripts.family_table", *FAMILIES, "--work", str(work)]
    command += ["--vllm", str(vllm_python), "--steps", *steps]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return work


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_holds_in_every_column(measured: Path, name: str) -> None:
    cells = dict(zip(HEAD[1:], cells_of(Place(measured, name)), strict=False))
    assert {column: cell.why for column, cell in cells.items() if cell.text == NO} == {}
    assert cells["quantized"].text == cells["verified"].text == "yes"


def test_what_was_not_asked_is_empty_and_no_yes(tmp_path: Path) -> None:
    cells = cells_of(Place(tmp_path, "llama"))
    assert {cell.text for cell in cells} == {""}


@pytest.mark.parametrize(
    ("of_the_peers", "num_different", "expected"),
    [
        ("KeyError: 'w2_bias'", 0, UNASKABLE),
        ("KeyError: 'w2_bias'", 1, NO),
        ("a rest", 0, UNASKABLE),
        ("", 0, NO),
    ],
)
def test_the_engine_is_at_its_limit_only_where_it_does_not_load_the_peers_equal_checkpoint(
    tmp_path: Path, of_the_peers: str, num_different: int, expected: str
) -> None:
    place = Place(tmp_path, "gpt_oss")
    place.folder.mkdir(parents=True)
    compared: dict[str, object] = {"num_different": num_different, "different": ["w"]}
    compared |= {
        "error": None,
        "compared": 9,
        "wider": 0,
        "num_peer_lacks": 0,
        "quantized_by_peer_alone": [],
    }
    told: dict[str, dict[str, object]] = {f"vllm-{UNQUANTIZED}": {"error": None}}
    for qformat in FORMATS:
        told[f"peer-{qformat}"], told[f"parity-{qformat}"] = {"error": None}, compared
        told[f"vllm-{qformat}"] = {"error": "RuntimeError: of ours"}
        told[f"vllm-peer-{qformat}"] = {"error": of_the_peers if "Error" in of_the_peers else None}
        report = {"num_untaken": 0, "untaken": [], "num_unfilled": 1 if of_the_peers else 0}
        told[f"vllm-peer-{qformat}.report.rank0"] = {**report, "unfilled": []}
    for what, answer in told.items():
        place.result(what).write_text(json.dumps(answer), encoding="utf-8")
    loaded = dict(zip(HEAD[1:], cells_of(place), strict=False))["loaded by vLLM"]
    assert loaded.text == expected


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- families: begin -->\nold\n<!-- families: end -->\nafter\n")
    write(markdown([Place(tmp_path, "llama")]), page)
    written = page.read_text(encoding="utf-8")
    assert written.startswith("before\n<!-- families: begin -->\n1 families")
    assert written.endswith("<!-- families: end -->\nafter\n")
    assert "old" not in written
