"""The exact arguments and environment of a server."""

import dataclasses
import os
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.errors import UsageError
from harness.models import open_source
from harness.serve.vllm.arguments import (
    PLUGIN,
    Setting,
    api_server,
    own_variables,
    process_environment,
    server_flags,
    user_flags,
)
from harness.serve.vllm.capabilities import Demands, capability_of

NVFP4 = Demands(scheme="NVFP4", kv_fp8=False, experts=True, linears=True)
BASELINE = Demands(scheme="", kv_fp8=False, experts=False, linears=False)
FP8 = Demands(scheme="FP8", kv_fp8=False, experts=True, linears=True)


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


def test_emulation_is_asked_for_only_where_the_declared_arithmetic_needs_it(
    setting: Setting,
) -> None:
    native = flags_of(setting, BASELINE)
    both = ("--moe-backend", "emulation", "--linear-backend", "emulation")
    assert flags_of(setting, NVFP4) == (*native, *both)
    assert flags_of(setting, NVFP4, "deployed") == native
    assert flags_of(setting, FP8) == native
    weight_only = dataclasses.replace(NVFP4, scheme="W4A16_NVFP4")
    assert flags_of(setting, weight_only) == native


def test_vllm_is_never_asked_to_emulate_experts_that_are_not_quantized(setting: Setting) -> None:
    dense = dataclasses.replace(NVFP4, experts=False)
    assert flags_of(setting, dense)[-2:] == ("--linear-backend", "emulation")
    assert "--moe-backend" not in flags_of(setting, dense)
    experts_only = dataclasses.replace(NVFP4, linears=False)
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
    variables = own_variables(bare, plugin="/p", records="/r")
    assert variables["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in own_variables(setting, plugin="/p", records="/r")


def test_tensor_parallelism_is_passed_on(setting: Setting) -> None:
    engine = dataclasses.replace(setting.engine, tensor_parallel_size=4)
    flags = server_flags(dataclasses.replace(setting, engine=engine))
    assert flags[2:4] == ("--tensor-parallel-size", "4")


def test_users_arguments_come_last_and_become_flags() -> None:
    arguments = ("max_num_seqs=16", "enforce-eager=true", "--enable-prefix-caching=false")
    expected = ("--max-num-seqs", "16", "--enforce-eager", "--no-enable-prefix-caching")
    assert user_flags(arguments) == expected
    assert user_flags(('override-generation-config={"a": 1}',))[1] == '{"a": 1}'


@pytest.mark.parametrize(
    "argument",
    ["model=x", "host=0.0.0.0", "port=1", "api_key=x", "trust-remote-code=true", "ssl-keyfile=x"],
)
def test_what_harness_decides_is_refused_by_name(argument: str) -> None:
    with pytest.raises(UsageError, match="harness itself decides"):
        user_flags((argument,))


@pytest.mark.parametrize("argument", ["enforce-eager", "=x", "a b=1", "-x=1"])
def test_a_malformed_argument_is_refused(argument: str) -> None:
    with pytest.raises(UsageError, match="KEY=VALUE"):
        user_flags((argument,))


def test_the_server_listens_where_it_is_told(setting: Setting) -> None:
    line = api_server(server_flags(setting), model="/m", host="127.0.0.1", port=81)
    assert line[:8] == (
        *("--model", "/m", "--served-model-name", "harness"),
        *("--host", "127.0.0.1", "--port", "81"),
    )


def test_the_environment_holds_the_plugin_first_and_no_secret(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "a secret")
    monkeypatch.setenv("PYTHONPATH", "/already/there")
    monkeypatch.setenv("VLLM_PLUGINS", "others_only")
    own = own_variables(setting, plugin=str(PLUGIN), records="/records")
    variables = process_environment(own, python=Path("/env/bin/python"), gpus=(2, 3))
    assert "a secret" not in variables.values()
    assert "VLLM_PLUGINS" not in variables
    assert variables["PYTHONPATH"].split(os.pathsep) == [str(PLUGIN), "/already/there"]
    assert variables["HARNESS_LOAD_REPORT"] == "/records/load_report"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert variables["PATH"].startswith("/env/bin")


def test_the_gpus_of_the_environment_are_kept_where_none_are_assigned(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    own = own_variables(setting, plugin="/p", records="/r")
    variables = process_environment(own, python=Path("/env/bin/python"), gpus=None)
    assert variables["CUDA_VISIBLE_DEVICES"] == "5"
