"""`--engine trtllm` against a stand-in that speaks its protocol: real processes, real HTTP."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness import shipped
from harness.artifacts import Ask, Endpoint, EngineSpec, Passage, SmokeSet
from harness.errors import EngineError, PrerequisiteError, ReasonCode, UsageError
from harness.preflight import check_answerable
from harness.recipe import load_suite
from harness.score import probe, score
from harness.serve import resolve_engine, serve, serve_command
from harness.serve.trtllm.environment import PROBE
from harness.serve.vllm.environment import PROBE as DRIVER_PROBE
from tests.nouns import suite_of, task_spec
from tests.score.conftest import GENERATE, write_task
from tests.serve.stand_in import How
from tests.typed import typed

SMOKE = SmokeSet(
    name="tiny",
    apply_chat_template=False,
    max_model_len=64,
    seed=3,
    top_k=2,
    passages=(Passage(id="known", text="abk"),),
    asks=(Ask(id="next", prompt="xx a", expect=("b",), max_tokens=8, stops=("\n",)),),
    digest="5" * 64,
)


def test_a_folder_is_served_and_what_cannot_be_seen_is_said(
    engine: EngineSpec, model: Path, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "secret")
    asked = replace(resolve_engine(engine), tensor_parallel_size=1, arguments=("max_batch_size=8",))
    with serve(asked, model) as served:
        assert isinstance(served, Endpoint)
        assert (served.model, served.dialect, served.max_model_len) == ("a-model", "trtllm", 64)
    deployment = served.deployment
    assert (deployment.engine, deployment.version) == ("trtllm", "1.2.0 (torch 2.9.0)")
    assert deployment.device == "NVIDIA H200 (sm_90)"
    flags = ("--backend", "pytorch", "--max_seq_len", "64", "--max_num_tokens", "8192")
    assert deployment.arguments == (*flags, "--max_batch_size", "8")
    assert (deployment.kernels, deployment.exercised) == ({}, ())
    assert [gap.reason for gap in deployment.not_observed] == [
        ReasonCode.LOAD_NOT_RECONCILED,
        ReasonCode.KERNELS_UNKNOWN,
    ]
    seen = json.loads((environment / "seen.json").read_text())
    assert seen["arguments"][:4] == ["-m", "tensorrt_llm.commands.serve", "serve", str(model)]
    assert seen["arguments"][4:6] == ["--host", "127.0.0.1"]
    assert "SOME_TOKEN" not in seen["environment"]
    assert not Path(seen["cwd"]).exists()


def test_what_is_generated_is_scored(
    engine: EngineSpec, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shipped" / "tiny"
    folder.mkdir(parents=True)
    rows: list[dict[str, object]] = [
        {"prompt": "xx a", "target": "b"},
        {"prompt": "k", "target": "kkkkkk"},
        {"prompt": "?", "target": "never"},
    ]
    write_task(folder, "tiny_next", rows, GENERATE)
    monkeypatch.setattr(shipped, "tasks", lambda: tmp_path / "shipped")
    suite = suite_of(task_spec("tiny_next", items=3, margin=0.5), max_model_len=32)
    with serve(engine, model) as served:
        card = score(served, suite, arm="candidate", into=tmp_path / "out")
    assert card.tasks[0].value == pytest.approx(2 / 3)
    assert card.tasks[0].num_errors == 0


def test_a_smoke_run_asks_it_for_answers_and_for_no_readings(
    engine: EngineSpec, model: Path
) -> None:
    with serve(engine, model) as served:
        made = probe(served, SMOKE, arm="candidate")
    assert made.readings == ()
    assert {(reply.text, reply.error) for reply in made.replies} == {("b", None)}


def test_tasks_of_choices_are_refused_by_name(engine: EngineSpec) -> None:
    suite = load_suite("canary")
    with pytest.raises(UsageError, match=r"asks for them in canary_compare.*Choose a suite"):
        check_answerable(engine, suite)
    generated = tuple(task for task in suite.tasks if task.metric == "exact_match")
    check_answerable(engine, replace(suite, tasks=generated))
    check_answerable(replace(engine, name="vllm"), suite)


@pytest.mark.parametrize(
    "command",
    [
        ("e2e", "--model", "canary", "--qformat", "nvfp4", "--suite", "canary", "--plan"),
        ("baseline", "add", "--model", "canary", "--suite", "canary"),
    ],
)
def test_the_command_line_refuses_them_before_anything_runs(
    command: tuple[str, ...], environment: Path
) -> None:
    done = typed(*command, "--engine", "trtllm", "--trtllm", environment)
    assert done.code == 2
    assert "canary_compare" in done.err
    assert not (environment / "seen.json").exists()


def test_a_server_that_ends_is_named_with_its_log(
    engine: EngineSpec, model: Path, how: How
) -> None:
    how(die="ValueError: 'NVFP5' is not a valid QuantAlgo")
    with pytest.raises(EngineError, match="before it was ready") as caught, serve(engine, model):
        pass
    assert "not a valid QuantAlgo" in str(caught.value)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"gpus": []}, r"needs 1 GPU\(s\), the driver shows 0"),
        ({"version": ""}, "no TensorRT-LLM was found by .*: it said nothing"),
        ({"gpus": 5}, "no TensorRT-LLM was found by"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_calibrated(
    engine: EngineSpec, how: How, facts: dict[str, object], words: str
) -> None:
    how(facts=facts)
    with pytest.raises(PrerequisiteError, match=words):
        resolve_engine(engine)


def test_the_current_folder_is_no_place_to_look(
    engine: EngineSpec, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HARNESS_TRTLLM", raising=False)
    monkeypatch.chdir(environment)
    with pytest.raises(PrerequisiteError, match=r"no --trtllm, no \$HARNESS_TRTLLM"):
        resolve_engine(replace(engine, place=None))
    monkeypatch.setenv("HARNESS_TRTLLM", str(environment))
    assert resolve_engine(replace(engine, place=None)).version == "1.2.0"
    with pytest.raises(PrerequisiteError, match="neither a Python nor the folder"):
        resolve_engine(replace(engine, place=str(environment / "how.json")))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("trust_remote_code=true", "these may be set as KEY=VALUE: kv_cache_free"),
        ("custom_module_dirs=/x", "these may be set"),
        ("max_batch_size", "these may be set"),
        ("max_batch_size=many", "'many' is no value of max_batch_size"),
    ],
)
def test_an_option_that_is_not_the_users_is_refused(
    engine: EngineSpec, argument: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        resolve_engine(replace(engine, arguments=(argument,)))


def test_the_line_to_type_is_its_own(engine: EngineSpec, model: Path) -> None:
    line = serve_command(resolve_engine(engine), model)
    assert line[:3] == ("trtllm-serve", "serve", str(model))
    assert line[3:5] == ("--backend", "pytorch")


def test_the_probe_reads_version_and_algorithms_and_imports_neither(tmp_path: Path) -> None:
    package = tmp_path / "tensorrt_llm"
    (package / "quantization").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')")
    source = "class QuantAlgo(StrEnum):\n    FP8 = auto()\n    NVFP4 = auto()\n"
    (package / "quantization" / "mode.py").write_text(f"from strenum import StrEnum\n{source}")
    metadata = tmp_path / "tensorrt_llm-1.3.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 1.3.0\n"
    )
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(tmp_path)!r}); "
        f"sys.argv = ['probe', {str(DRIVER_PROBE)!r}]; "
        f"runpy.run_path({str(PROBE)!r}, run_name='__main__')"
    )
    asked = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    facts = json.loads(asked.stdout)
    assert (facts["version"], facts["algorithms"]) == ("1.3.0", ["FP8", "NVFP4"])
