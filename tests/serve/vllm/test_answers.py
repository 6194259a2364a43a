"""What a vLLM is asked before anything is made: each question by itself, in one process."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from harness.errors import PrerequisiteError
from harness.serve import find_vllm, resolve_engine
from harness.serve.vllm import answers
from harness.serve.vllm.answers import Answers, Said, ask_abilities, read_answers
from harness.serve.vllm.environment import ask_vllm
from tests.serve.stand_in import How
from tests.tiers import slow

from .fake_package import make_environment

QUANT = "vllm/model_executor/layers/quantization"
LINEAR = "vllm/model_executor/kernels/linear/__init__.py"
PARSER = "vllm/entrypoints/openai/cli_args.py"
SERVER = "vllm/entrypoints/openai/api_server.py"
PYTHON = find_vllm()


def asked(folder: Path, changes: Mapping[str, str | None] | None = None) -> Answers:
    return ask_abilities(ask_vllm(str(make_environment(folder / "env", changes=changes))))


def test_one_process_answers_every_question(tmp_path: Path) -> None:
    options, found = asked(tmp_path)
    assert options is not None
    assert [one.names[0] for one in options if one.kind == "int"] == ["max-num-seqs"]
    assert found.quant_algos == frozenset({"FP8", "NVFP4", "W4A16_NVFP4", "MIXED_PRECISION"})
    assert found.methods == frozenset({"modelopt", "modelopt_fp4", "compressed-tensors"})
    assert found.schemes == frozenset({"CompressedTensorsW4A4Fp4"})
    assert found.linear_kernels == {
        "fp8": ("CPUFP8W8A8ScaledMMLinearKernel", "TorchKernel"),
        "fp8_block": (),
        "mxfp8": (),
    }
    assert found.expert_backends == {"nvfp4": ("MARLIN", "EMULATION")}
    assert found.loaders == {"auto": "DefaultModelLoader"}
    assert found.takes("--moe-backend", "emulation") is True
    assert found.takes("--moe-backend", "marlin") is False
    assert found.takes("--no-enforce-eager") is True
    assert found.takes("--linear-backend") is False
    assert found.knows("Qwen3_5MoeForConditionalGeneration") is True
    assert found.knows("Olmo9ForCausalLM") is True
    assert found.knows("NeverHeardOfForCausalLM") is False


@pytest.mark.parametrize(
    ("file", "text", "part"),
    [
        (f"{QUANT}/modelopt.py", "ALGOS = []", "quant_algos"),
        (f"{QUANT}/modelopt.py", "QUANT_ALGOS = 7", "quant_algos"),
        (f"{QUANT}/__init__.py", "", "methods"),
        (LINEAR, "_KERNELS = {{}}", "linear_kernels"),
        (LINEAR, "_POSSIBLE_FP8_KERNELS = {{'CUDA': [object]}}", "linear_kernels"),
        ("vllm/model_executor/models/__init__.py", "raise SystemExit(3)", "architectures"),
        ("vllm/model_executor/model_loader/__init__.py", "1 / 0", "loaders"),
        (PARSER, "raise ValueError('two\\nlines')", "options"),
    ],
)
def test_what_has_another_name_is_unknown_with_its_reason_and_the_rest_is_known(
    file: str, text: str, part: str, tmp_path: Path
) -> None:
    found = asked(tmp_path, {file: text}).abilities
    assert part in found.unknown
    assert found.unknown[part].isprintable()
    assert len(found.unknown.keys() - {"adapters", "by_transformers"}) == 1


def test_a_question_of_which_the_process_dies_costs_only_what_comes_after_it(
    tmp_path: Path,
) -> None:
    dies = "import os, sys; sys.stderr.write('Illegal instruction\\n'); os._exit(132)"
    found = asked(tmp_path, {LINEAR: dies}).abilities
    assert found.quant_algos is not None
    assert found.linear_kernels is None
    assert found.unknown["architectures"] == "Illegal instruction"


def test_a_vllm_that_cannot_be_imported_is_unknown_as_a_whole(tmp_path: Path) -> None:
    broken = {"vllm/__init__.py": "raise ImportError('libcuda.so.1: cannot open')"}
    options, found = asked(tmp_path, broken)
    assert options is None
    assert set(found.unknown.values()) == {"ImportError: libcuda.so.1: cannot open"}
    assert found.takes("--host") is None
    assert found.knows("AnyForCausalLM") is None


def test_a_parser_that_is_made_elsewhere_is_taken_from_the_server_itself(tmp_path: Path) -> None:
    server = """
        import argparse
        if __name__ == "__main__":
            parser = argparse.ArgumentParser()
            parser.add_argument("--made-by-the-server")
            parser.parse_args()
            raise RuntimeError("it went on")
        """
    options, _ = asked(tmp_path, {PARSER: None, SERVER: server})
    assert options is not None
    assert options[-1].names == ("made-by-the-server",)


@pytest.mark.parametrize(
    ("installed", "version"),
    [
        ("0.40.0", "0.40.0"),
        ("0.40.0+cpu", "0.40.0"),
        ("0.33.1.dev12+gabcdef012.cu130", "0.33.1.dev12+gabcdef012"),
        ("0.33.1.dev12+gabcdef012.d20261129.cpu", "0.33.1.dev12+gabcdef012"),
        ("0.34.0rc2", "0.34.0rc2"),
        ("0.1.dev1+gabcdef012", "0.1.dev1+gabcdef012"),
    ],
)
def test_a_nightly_build_is_named_with_its_commit(
    installed: str, version: str, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env", version=installed)
    assert ask_vllm(str(python)).version == version


@pytest.mark.parametrize(
    ("built", "platform"),
    [("cuda = '13.0'", "cuda"), ("cuda, hip = None, '7.0'", "rocm"), ("xpu = '2025'", "xpu")],
)
def test_what_a_build_is_for_follows_from_its_torch(
    built: str, platform: str, tmp_path: Path
) -> None:
    python = make_environment(tmp_path / "env", changes={"torch/version.py": built})
    assert ask_vllm(str(python)).platform == platform


def test_a_vllm_that_lies_in_a_checkout_is_asked_again_when_a_file_of_it_changes(
    tmp_path: Path,
) -> None:
    python = make_environment(tmp_path / "env")
    (packages,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (packages / "vllm").rename(checkout / "vllm")
    (packages / "checkout.pth").write_text(str(checkout), encoding="utf-8")
    before = ask_vllm(str(python)).installed
    assert ask_vllm(str(python)).installed == before
    (checkout / QUANT / "modelopt.py").write_text("QUANT_ALGOS = ['FP9']", encoding="utf-8")
    assert ask_vllm(str(python)).installed != before


def test_answers_are_asked_for_once_for_each_environment(engine: EngineSpec, how: How) -> None:
    environment = ask_vllm(engine.place)
    before = ask_abilities(environment)
    how(FAKE_ANSWERS='{"quant_algos": ["FP9"]}')
    assert ask_abilities(environment) == before
    again = ask_abilities(dataclasses.replace(environment, installed="2")).abilities
    assert again.quant_algos == frozenset({"FP9"})


def test_a_place_for_the_cache_that_cannot_be_written_changes_nothing(
    engine: EngineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    environment = ask_vllm(engine.place)
    for number, place in enumerate((str(tmp_path / "file"), "relative")):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        found = ask_abilities(dataclasses.replace(environment, installed=str(number)))
        assert found.options is not None
    assert not Path("relative").exists()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        "[" * 3000,
        '{"question": "methods"}',
        '{"question": "methods", "known": {"a": 1}}',
        '{"question": "linear_kernels", "known": ["x"]}',
        '{"question": "options", "known": [{}]}',
        '{"question": "adapters", "known": {"found": 7}}',
        '{"question": "nobody asked", "known": 7}',
    ],
)
def test_an_answer_of_another_shape_is_none(line: str) -> None:
    good = json.dumps({"question": "quant_algos", "known": ["FP8"]})
    options, found = read_answers(Said(f"{line}\n{good}\n", is_whole=True))
    assert options is None
    assert found.methods is None
    assert found.quant_algos == frozenset({"FP8"})


def test_a_server_that_could_not_be_kept_safe_is_refused(engine: EngineSpec, how: How) -> None:
    lacking = {"found": [], "missing": {"api-key": "there is no x"}, "mandatory": ["api-key"]}
    how(FAKE_ANSWERS=json.dumps({"adapters": lacking}))
    with pytest.raises(
        PrerequisiteError, match=r"cannot be served safely.*api-key in it: there is"
    ):
        resolve_engine(engine)


@pytest.fixture(scope="module")
@slow("vLLM is imported")
def real(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    if PYTHON is None:
        pytest.skip("no vLLM here: scripts/setup-vllm cpu makes one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return ask_abilities(ask_vllm(str(PYTHON)))


def test_the_real_vllm_answers_every_question(real: Answers) -> None:
    found = real.abilities
    assert set(found.unknown) == set()
    assert found.missing == {}
    assert found.quant_algos is not None
    assert {"NVFP4", "W4A16_NVFP4", "FP8", "MIXED_PRECISION"} <= found.quant_algos
    assert found.linear_kernels is not None
    assert {"fp8", "nvfp4"} <= found.linear_kernels.keys()
    assert found.knows("Qwen3_5MoeForConditionalGeneration") is True
    assert found.takes("--moe-backend", "emulation") is True
    assert found.loaders is not None
    assert found.loaders["safetensors"] == "DefaultModelLoader"


def test_what_a_verdict_will_lack_is_said_before_anything_is_made(
    engine: EngineSpec, how: How, caplog: pytest.LogCaptureFixture
) -> None:
    lacking = {"found": [], "missing": {"load-report": "gone"}, "mandatory": ["api-key"]}
    how(FAKE_ANSWERS=json.dumps({"adapters": lacking}))
    for _ in range(2):
        resolve_engine(engine)
    said = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(said) == 1
    assert said[0].endswith("what is loaded is not held against the files: load-not-reconciled")


def test_another_processor_is_asked_again(
    engine: EngineSpec, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = ask_vllm(engine.place)
    ask_abilities(environment)
    how(FAKE_ANSWERS='{"linear_kernels": {"fp8_block": ["AmxKernel"]}}')
    monkeypatch.setattr(answers, "_processor", lambda: b"flags: amx_tile")
    answers._of_questions.cache_clear()  # noqa: SLF001 -- of the processor before
    found = ask_abilities(environment).abilities
    answers._of_questions.cache_clear()  # noqa: SLF001 -- of this test's
    assert found.linear_kernels == {"fp8_block": ("AmxKernel",)}
