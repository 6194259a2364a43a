"""A stand-in for SGLang's environment."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import Endpoint, EngineSpec
from harness.serve import resolve_engine
from harness.serve.readiness import StartLimits
from harness.serve.sglang.server import serve_sglang
from tests.nouns import engine_spec
from tests.serve.stand_in import How, how_of, make_environment

FAKE = Path(__file__).with_name("fake_sglang.py")


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """The `bin/python` of an environment whose SGLang is fake_sglang.py."""
    return make_environment(tmp_path / "env", FAKE)


@pytest.fixture
def how(fake_python: Path) -> How:
    """Say what the stand-in shall do."""
    return how_of(fake_python)


@pytest.fixture
def engine(fake_python: Path) -> EngineSpec:
    return engine_spec("sglang", place=str(fake_python))


@dataclass
class Fake:
    """The stand-in, ready to serve unless it is told otherwise, and where its records go."""

    engine: EngineSpec
    model: Path
    how: How
    records: Path

    @contextmanager
    def served(self, limits: StartLimits | None = None) -> Iterator[Endpoint]:
        engine = resolve_engine(self.engine)
        with serve_sglang(engine, self.model, records=self.records, limits=limits) as endpoint:
            yield endpoint

    def seen(self) -> Any:  # noqa: ANN401 -- JSON
        """Return what the server was given: its environment, folder and arguments."""
        return json.loads((self.records / "seen.json").read_text(encoding="utf-8"))


@pytest.fixture
def fake(engine: EngineSpec, tiny_qwen3_5_moe: Path, how: How, tmp_path: Path) -> Fake:
    model = tmp_path / "model"
    shutil.copytree(tiny_qwen3_5_moe, model)
    return Fake(engine, model, how, tmp_path / "records")
