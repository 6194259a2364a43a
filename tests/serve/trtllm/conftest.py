"""A stand-in for TensorRT-LLM's environment, and a model for it to serve."""

import shutil
from pathlib import Path

import pytest

from harness.artifacts import EngineSpec
from tests.nouns import engine_spec
from tests.score.conftest import make_tokenizer
from tests.serve.stand_in import How, how_of, make_environment

FAKE = Path(__file__).with_name("fake_trtllm.py")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """The folder of an environment whose TensorRT-LLM is fake_trtllm.py."""
    return make_environment(tmp_path / "env", FAKE).parents[1]


@pytest.fixture
def how(environment: Path) -> How:
    """Say what the stand-in shall do."""
    return how_of(environment / "bin" / "python")


@pytest.fixture
def engine(environment: Path) -> EngineSpec:
    return engine_spec("trtllm", place=str(environment))


@pytest.fixture
def model(tiny_qwen3: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "a-model"
    shutil.copytree(tiny_qwen3, folder)
    make_tokenizer().save_pretrained(folder)
    return folder
