"""`harness doctor --vllm`: a vLLM by its own account, and what that means for a verdict."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.serve.vllm.fake_package import make_environment


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the answers of no other test's vLLM."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_probe_is_printed_with_what_it_means(tmp_path: Path, cli: Cli) -> None:
    python = make_environment(tmp_path / "env", version="0.40.0")
    done = cli("doctor", "--vllm", str(tmp_path / "env"))
    assert done.code == 0
    text = " ".join(done.out.split())
    assert f"vLLM 0.40.0 (cpu, torch 2.13.0+cpu) in '{python}'" in text
    assert "tested: no; tested are 0.25.0 (cuda), 0.32.0 (cpu)" in text
    assert "modelopt algorithms: FP8, MIXED_PRECISION, NVFP4, W4A16_NVFP4" in text
    assert "fp8: CPUFP8W8A8ScaledMMLinearKernel, TorchKernel; fp8_block: none; mxfp8: none" in text
    assert "takes --moe-backend emulation, --enforce-eager" in text
    assert "emulation: experts" in text
    assert "architectures: 2, and can try 1 of transformers'" in text
    assert "so: its version was not tested" in text


def test_json_holds_what_is_known_and_why_the_rest_is_not(tmp_path: Path, cli: Cli) -> None:
    registry = {"vllm/model_executor/models/__init__.py": "Registry = None"}
    python = make_environment(tmp_path / "env", version="0.34.1.dev3+gabc1234", changes=registry)
    found = cli("doctor", "--vllm", str(python), "--json").json
    assert (found["version"], found["tested"]) == ("0.34.1.dev3+gabc1234", False)
    assert found["quant_algos"] == ["FP8", "MIXED_PRECISION", "NVFP4", "W4A16_NVFP4"]
    assert found["num_architectures"] is None
    assert "ModelRegistry" in found["unknown"]["architectures"]
    assert found["flags"]["--linear-backend emulation"] is False


def test_a_version_whose_server_could_not_be_kept_safe_is_said_not_to_be_served(
    tmp_path: Path, cli: Cli
) -> None:
    make_environment(tmp_path / "env")
    means = cli("doctor", "--vllm", str(tmp_path / "env"), "--json").json["means"]
    assert "it is not served: what keeps a server safe does not fit it (api-key)" in means
    assert any("INCONCLUSIVE for that, or GO where it says" in one for one in means)


def test_a_version_that_is_too_old_is_said_not_to_be_served(tmp_path: Path, cli: Cli) -> None:
    make_environment(tmp_path / "env", version="0.24.0")
    done = cli("doctor", "--vllm", str(tmp_path / "env"))
    assert done.code == 0
    assert "is older than 0.25" in " ".join(done.out.split())


def test_what_is_no_vllm_is_refused(tmp_path: Path, cli: Cli) -> None:
    done = cli("doctor", "--vllm", str(tmp_path))
    assert done.code == 2
    assert "neither a Python nor the folder of an environment" in done.err
