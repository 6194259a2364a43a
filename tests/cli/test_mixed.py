"""Recipes that give layers different formats, through the command line to a verdict."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.tiers import slow

RECIPE = "w4a16_nvfp4_fp8_attention"
PARTS = ["weights:fp8", "weights:nvfp4", "inputs:fp8", "kv:fp8"]

Typed = tuple[str, ...]


@pytest.fixture(scope="module")
@slow("a run of the main job on the reference engine")
def on_reference(cli: Cli, quick: Typed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(cli, quick, tmp_path_factory.mktemp("runs") / "reference")


@pytest.fixture(scope="module")
@slow("two real vLLM servers, one an arm")
def on_vllm(
    vllm_python: Path, cli_process: Cli, quick: Typed, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    assert vllm_python.is_file()
    into = tmp_path_factory.mktemp("runs") / "vllm"
    return run(cli_process, quick, into, "--engine", "vllm")


def run(cli: Cli, quick: Typed, into: Path, *engine: str) -> Path:
    kv_cache = ("--kv-cache-qformat", "fp8")
    done = cli(*quick, "--qformat", RECIPE, *kv_cache, *engine, "--run-dir", into)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    return into


@pytest.mark.parametrize("engine", ["on_reference", "on_vllm"])
def test_each_layer_is_computed_in_its_own_format(
    request: pytest.FixtureRequest, engine: str
) -> None:
    into: Path = request.getfixturevalue(engine)
    verdict = json.loads((into / "verdict.json").read_bytes())
    assert (verdict["decision"], verdict["scheme"]) == ("GO", "MIXED_PRECISION")
    deployment = json.loads((into / "deployment.json").read_bytes())
    assert deployment["declared"] == deployment["exercised"] == PARTS


def test_a_plan_says_what_becomes_of_each_layer_and_what_loads_it(cli: Cli) -> None:
    done = cli("e2e", "--model", "canary", "--qformat", RECIPE, "--plan", "--json")
    assert done.code == 0, done.err
    assert done.json["scheme"] == "MIXED_PRECISION"
    assert done.json["loaded_by"] == ["vllm 0.25.0 cuda", "vllm 0.32.0 cpu"]
    assert done.json["kv_cache"] == "fp8_cast, declared in hf_quant_config.json alone"
    formats = {one["pattern"]: one["format"] for one in done.json["quantized"]}
    assert formats["lm_head"] == "nvfp4 weights, plain inputs"
    assert formats["model.language_model.layers.*.self_attn.q_proj"] == "fp8 weights, fp8 inputs"
