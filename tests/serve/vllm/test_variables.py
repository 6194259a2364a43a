"""What of the environment reaches a server, and what of that is recorded."""

import os
from pathlib import Path

import pytest

from harness.serve.vllm.variables import left_out, process_environment, recorded_arguments

OWN = {"PYTHONPATH": "/plugin", "VLLM_API_KEY": "drawn", "VLLM_NO_USAGE_STATS": "1"}
SECRETS = """
    AWS_ACCESS_KEY_ID DATABASE_URL GITHUB_PAT HF_TOKEN HTTPS_PROXY NVIDIA_API_KEY OPENAI_API_KEY
    PGPASSWORD REGISTRY_PASSWD VLLM_MODEL_REDIRECT_PATH VLLM_PLUGINS VLLM_TEST_FORCE_LOAD_FORMAT
    VLLM_TRACKER_PAT LD_PRELOAD PYTHONHOME PYTHONSTARTUP
""".split()  # noqa: SIM905 -- a name a line would be a screen


def test_nothing_that_is_not_listed_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "a secret")
    variables = process_environment(OWN, python=Path("/env/bin/python"), gpus=None)
    assert "a secret" not in variables.values()
    assert not set(SECRETS) & set(variables)


def test_what_the_server_needs_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "3", "TMPDIR": "/t", "CUDA_HOME": "/cuda"}
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    variables = process_environment(OWN, python=Path("/env/bin/python"), gpus=(2, 3))
    assert needed.items() <= variables.items()
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert variables["PYTHONPATH"] == "/plugin"


def test_the_gpus_of_the_environment_are_kept_where_none_are_assigned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    variables = process_environment(OWN, python=Path("/env/bin/python"), gpus=None)
    assert variables["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize("name", ["PATH", "LD_LIBRARY_PATH"])
def test_no_program_and_no_library_is_looked_for_in_the_current_folder(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, os.pathsep.join(["", ".", "/usr/bin", "bin", "~/bin", "/bin", ""]))
    variables = process_environment(OWN, python=Path("/env/bin/python"), gpus=None)
    folders = variables[name].split(os.pathsep)
    assert folders == [*(["/env/bin"] if name == "PATH" else []), "/usr/bin", "/bin"]


def test_a_variable_of_vllms_that_is_left_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_OWN_PAT", "a secret")
    monkeypatch.setenv("VLLM_API_KEY", "a secret")
    assert left_out() == ("VLLM_OWN_PAT",)


def test_neither_the_key_nor_an_unknown_value_is_recorded() -> None:
    variables = OWN | {"VLLM_OF_AN_IMAGE": "a secret", "VLLM_CPU_KVCACHE_SPACE": "1", "HOME": "/h"}
    assert recorded_arguments(("--x",), variables) == (
        "--x",
        "VLLM_CPU_KVCACHE_SPACE=1",
        "VLLM_NO_USAGE_STATS=1",
        "VLLM_OF_AN_IMAGE",
    )
