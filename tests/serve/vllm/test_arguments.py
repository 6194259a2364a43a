"""The exact arguments of a server."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec, ServerShare
from harness.engines import Abilities, Demands, capability_of
from harness.models import open_source
from harness.serve.vllm.arguments import Setting, api_server, own_variables, server_flags

NVFP4 = Demands(linears=frozenset({"NVFP4"}), experts=frozenset({"NVFP4"}))
BASELINE = Demands()
FP8 = Demands(linears=frozenset({"FP8"}), experts=frozenset({"FP8"}))


@pytest.fixture
def setting(engine: EngineSpec, model: Path) -> Setting:
    return Setting(
        engine=dataclasses.replace(engine, max_model_len=512),
        source=open_source(str(model)),
        demands=BASELINE,
        capability=capability_of("0.25.0", "cuda"),
        has_flashinfer=True,
    )


def flags_of(setting: Setting, demands: Demands, numerics: str = "declared") -> tuple[str, ...]:
    engine = dataclasses.replace(setting.engine, numerics=numerics)
    return server_flags(dataclasses.replace(setting, demands=demands, engine=engine))


def test_the_baseline_always_runs_native(setting: Setting) -> None:
    native = ("--max-model-len", "512", "--language-model-only")
    assert flags_of(setting, BASELINE, "declared") == native
    assert flags_of(setting, BASELINE, "deployed") == native


def test_vllm_reads_the_files_that_were_verified_and_not_those_beside_them(
    setting: Setting, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(setting.source.path, tmp_path / "beside"))
    beside = dataclasses.replace(setting, source=open_source(str(folder)))
    assert "--load-format" not in flags_of(beside, BASELINE)
    (folder / "consolidated.safetensors").write_bytes(b"")
    flags = flags_of(beside, BASELINE)
    assert flags[flags.index("--load-format") + 1] == "safetensors"


def test_no_flag_is_passed_that_a_version_lacks(setting: Setting) -> None:
    lacking = Abilities(
        flags={"max-model-len": frozenset(), "linear-backend": frozenset({"emulation"})}
    )
    on_cpu = capability_of("0.40.0", "cpu", lacking)
    on_gpu = capability_of("0.40.0", "cuda", lacking)
    bare = dataclasses.replace(setting, has_flashinfer=False)
    native = ("--max-model-len", "512")
    assert flags_of(dataclasses.replace(bare, capability=on_cpu), NVFP4) == native
    emulated = flags_of(dataclasses.replace(bare, capability=on_gpu), NVFP4)
    assert emulated == (*native, "--linear-backend", "emulation")


def test_emulation_is_asked_for_only_where_the_declared_arithmetic_needs_it(
    setting: Setting,
) -> None:
    native = flags_of(setting, BASELINE)
    both = ("--moe-backend", "emulation", "--linear-backend", "emulation")
    assert flags_of(setting, NVFP4) == (*native, *both)
    assert flags_of(setting, NVFP4, "deployed") == native
    assert flags_of(setting, FP8) == native
    weight_only = Demands(linears=frozenset({"W4A16_NVFP4"}), experts=frozenset({"W4A16_NVFP4"}))
    assert flags_of(setting, weight_only) == native


def test_vllm_is_never_asked_to_emulate_experts_that_are_not_quantized(setting: Setting) -> None:
    dense = dataclasses.replace(NVFP4, experts=frozenset())
    assert flags_of(setting, dense)[-2:] == ("--linear-backend", "emulation")
    assert "--moe-backend" not in flags_of(setting, dense)
    experts_only = dataclasses.replace(NVFP4, linears=frozenset())
    assert "--linear-backend" not in flags_of(setting, experts_only)


def test_the_cpu_build_emulates_nvfp4_whatever_is_asked(setting: Setting) -> None:
    on_cpu = dataclasses.replace(setting, capability=capability_of("0.32.0", "cpu"))
    for numerics in ("declared", "deployed"):
        flags = flags_of(on_cpu, NVFP4, numerics)
        assert flags[-2:] == ("--moe-backend", "emulation")
        assert "--enforce-eager" in flags


def test_without_flashinfer_nothing_of_it_is_used(setting: Setting) -> None:
    bare = dataclasses.replace(setting, has_flashinfer=False)
    assert flags_of(bare, BASELINE)[-2:] == ("--gdn-prefill-backend", "triton")
    variables = own_variables(bare.surrounded, plugin="/p", records="/r", key="k")
    assert variables["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in own_variables(
        setting.surrounded, plugin="/p", records="/r", key="k"
    )


def test_tensor_parallelism_is_passed_on(setting: Setting) -> None:
    engine = dataclasses.replace(setting.engine, tensor_parallel_size=4)
    flags = server_flags(dataclasses.replace(setting, engine=engine))
    assert flags[2:4] == ("--tensor-parallel-size", "4")


def test_a_server_beside_another_is_told_what_it_may_take_before_what_the_user_says(
    setting: Setting,
) -> None:
    share = ServerShare(kv_bytes=1 << 30, utilization=0.25, requests=64)
    engine = dataclasses.replace(setting.engine, share=share)
    beside = dataclasses.replace(setting, engine=engine, user_flags=("--max-num-seqs=16",))
    told = ("--kv-cache-memory-bytes", str(1 << 30), "--gpu-memory-utilization", "0.25")
    assert server_flags(beside)[-7:] == (*told, "--max-num-seqs", "64", "--max-num-seqs=16")
    lacking = Abilities(flags={"max-model-len": frozenset()})
    older = dataclasses.replace(beside, capability=capability_of("0.40.0", "cuda", lacking))
    assert "--gpu-memory-utilization" not in server_flags(older)


def test_on_a_cpu_a_server_beside_another_has_cores_of_its_own(setting: Setting) -> None:
    on_cpu = dataclasses.replace(setting, capability=capability_of("0.32.0", "cpu"))
    engine = dataclasses.replace(setting.engine, share=ServerShare(cores=(4, 6)))
    beside = dataclasses.replace(on_cpu, engine=engine)
    found = own_variables(beside.surrounded, plugin="/p", records="/r", key="k")
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "4,6"
    alone = own_variables(on_cpu.surrounded, plugin="/p", records="/r", key="k")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in alone


def test_users_arguments_come_last(setting: Setting) -> None:
    chosen = ("--max-num-seqs=16", "--no-enforce-eager")
    flags = server_flags(dataclasses.replace(setting, user_flags=chosen))
    assert flags[-2:] == chosen


def test_the_server_listens_where_it_is_told(setting: Setting) -> None:
    line = api_server(server_flags(setting), model="/m", host="127.0.0.1", port=81)
    assert line[:8] == (
        *("--model", "/m", "--served-model-name", "harness"),
        *("--host", "127.0.0.1", "--port", "81"),
    )
