"""A checkpoint whose factors are folded away, through the command line to a verdict on vLLM."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.tiers import slow


@pytest.fixture(scope="module")
@slow("two real vLLM servers, one an arm")
def on_vllm(
    vllm_python: Path,
    cli_process: Cli,
    quick: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    assert vllm_python.is_file()
    into = tmp_path_factory.mktemp("runs") / "vllm"
    options = ("--qformat", "nvfp4_awq_local_hessian", "--engine", "vllm", "--run-dir", into)
    done = cli_process(*quick, *options)
    assert done.code == 0, done.err
    assert "smoothed inputs of" in done.err
    return into


def test_vllm_loads_it_as_any_other(on_vllm: Path) -> None:
    verdict = json.loads((on_vllm / "verdict.json").read_bytes())
    assert (verdict["decision"], verdict["scheme"]) == ("GO", "NVFP4")
