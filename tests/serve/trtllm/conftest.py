"""A stand-in for TensorRT-LLM's environment, and a model for it to serve."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from tests.nouns import engine_spec
from tests.score.conftest import make_tokenizer

FAKE = Path(__file__).with_name("fake_trtllm.py")
How = Callable[..., None]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The folder of an environment whose TensorRT-LLM is fake_trtllm.py."""
    folder = tmp_path / "env"
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    (folder / "how.json").write_text("{}", encoding="utf-8")
    script = f'FAKE_HOW={folder}/how.json exec {sys.executable} {FAKE} "$@"'
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    return folder


@pytest.fixture
def how(environment: Path) -> How:
    """Say what the stand-in shall do."""

    def say(**values: object) -> None:
        (environment / "how.json").write_text(json.dumps(values), encoding="utf-8")

    return say


@pytest.fixture
def engine(environment: Path) -> EngineSpec:
    return engine_spec("trtllm", place=str(environment))


@pytest.fixture
def model(tiny_qwen3: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "a-model"
    shutil.copytree(tiny_qwen3, folder)
    make_tokenizer().save_pretrained(folder)
    return folder
