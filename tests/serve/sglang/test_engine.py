"""SGLang is found by place alone, asked before anything is made, and takes what is permitted."""

import dataclasses
import json
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.engines import Demands
from harness.errors import PrerequisiteError, ReasonCode, UsageError
from harness.recipe import load_recipe
from harness.request import Request
from harness.serve import check_served, foretell_served, has_emulation, resolve_engine
from harness.serve.engines import engine_named
from harness.serve.sglang.environment import (
    VARIABLE,
    SglangEnvironment,
    ask_answers,
    ask_sglang,
    find_sglang,
)
from harness.serve.sglang.server import server_flags, setting_of
from harness.serve.vllm.answers import Answers
from tests.nouns import engine_spec
from tests.serve.stand_in import How

from .conftest import Fake

NVFP4 = Demands(experts=frozenset({"NVFP4"}))


def test_an_engine_is_resolved_to_its_python_and_version(engine: EngineSpec) -> None:
    found = resolve_engine(engine)
    assert (found.version, found.device, found.place) == ("0.5.15", "cuda", engine.place)


def test_none_is_found_where_nobody_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / ".venv-sglang" / "bin").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_sglang() is None
    with pytest.raises(PrerequisiteError, match="no SGLang was named"):
        resolve_engine(engine_spec("sglang", place=None))


def test_a_variable_names_one_too(fake_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(fake_python.parents[1]))
    assert find_sglang() == fake_python


def test_what_was_named_must_be_a_python(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="is neither a Python"):
        find_sglang(str(tmp_path))


def test_a_machine_without_a_gpu_is_refused(engine: EngineSpec, how: How) -> None:
    how(FAKE_GPUS="[]")
    with pytest.raises(PrerequisiteError, match="needs 1 GPU"):
        resolve_engine(engine)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("quantization=fp8", "harness itself decides 'quantization'"),
        ("api-key=x", "harness itself decides"),
        ("tp-size=2", "harness itself decides"),
        ("forward-hooks={}", "harness itself decides"),
        ("crash-dump-folder=/x", "none that may be set"),
        ("attention-backend=none", "is one of triton, fa3, flashinfer"),
        ("mem-fraction-static=much", "is a number"),
        ("nonsense=1", "has no option 'nonsense'"),
    ],
)
def test_an_option_that_is_not_the_users_is_refused(
    engine: EngineSpec, argument: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_engine(dataclasses.replace(engine, arguments=(argument,)))


def test_what_a_version_does_not_register_is_refused(engine: EngineSpec, how: How) -> None:
    check_served(engine, NVFP4)
    how(FAKE_ANSWERS=json.dumps({"methods": ["fp8"]}), FAKE_VERSION="0.5.16")
    with pytest.raises(PrerequisiteError, match="registers no method 'modelopt_fp4'") as caught:
        check_served(engine, NVFP4)
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_a_version_that_cannot_be_asked_is_served_all_the_same(
    engine: EngineSpec, how: How
) -> None:
    how(FAKE_ANSWERS=json.dumps({"methods": None, "options": None}))
    assert resolve_engine(engine).version == "0.5.15"
    check_served(engine, NVFP4)
    with pytest.raises(PrerequisiteError, match="did not tell its options"):
        resolve_engine(dataclasses.replace(engine, arguments=("random-seed=1",)))


def test_an_old_versions_misreading_is_foretold(engine: EngineSpec) -> None:
    one = frozenset({"FP8_PB_WO"})
    (said,) = foretell_served(engine, Demands(linears=one))
    assert (said.fate, said.why) == ("misread", "its FP8 method reads it as one scale a tensor")


def test_nothing_is_emulated(engine: EngineSpec) -> None:
    assert not has_emulation(engine, NVFP4)


def test_flags_follow_from_what_is_served(fake: Fake) -> None:
    environment, answers = _asked(fake)
    engine = dataclasses.replace(fake.engine, tensor_parallel_size=2, max_model_len=64)
    setting = setting_of(engine, fake.model, environment, answers)
    assert server_flags(setting) == ("--context-length", "64", "--tp-size", "2")
    quantized = dataclasses.replace(setting, demands=dataclasses.replace(NVFP4, kv_fp8=True))
    assert server_flags(quantized)[-4:] == (
        *("--quantization", "modelopt_fp4"),
        *("--kv-cache-dtype", "fp8_e4m3"),
    )


def test_the_line_to_deploy_with_is_sglangs_own(fake: Fake) -> None:
    line = engine_named("sglang").command(fake.engine, fake.model)
    assert line[:4] == ("sglang", "serve", "--model-path", str(fake.model))


@pytest.mark.parametrize(
    ("engine_name", "named"), [("vllm", "sglang"), ("reference", "sglang"), ("sglang", "vllm")]
)
def test_an_environment_named_for_another_engine_is_refused(engine_name: str, named: str) -> None:
    request = Request(model="canary", qformat="nvfp4", engine=engine_name)
    request = dataclasses.replace(request, **{named: Path("x")})  # type: ignore[arg-type]  # by name
    with pytest.raises(UsageError, match=f"--{named} x is for --engine {named}"):
        load_recipe(request)


def _asked(fake: Fake) -> tuple[SglangEnvironment, Answers]:
    environment = ask_sglang(fake.engine.place)
    return environment, ask_answers(environment)
