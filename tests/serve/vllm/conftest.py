"""A stand-in for vLLM's environment, and what is left of a server."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness.artifacts import Endpoint, EngineSpec
from harness.serve import resolve_engine
from harness.serve.readiness import StartLimits
from harness.serve.vllm.server import Site, serve_vllm
from tests.nouns import engine_spec
from tests.serve.stand_in import How, how_of, make_environment

FAKE = Path(__file__).with_name("fake_vllm.py")


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """The `bin/python` of an environment whose vLLM is fake_vllm.py."""
    return make_environment(tmp_path / "env", FAKE)


@pytest.fixture
def how(fake_python: Path) -> How:
    """Say what the stand-in shall do."""
    return how_of(fake_python)


@pytest.fixture
def engine(fake_python: Path) -> EngineSpec:
    return engine_spec("vllm", place=str(fake_python))


@pytest.fixture
def model(tiny_qwen3_5_moe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_qwen3_5_moe, folder)
    return folder


@dataclass
class Fake:
    """The stand-in, ready to serve unless it is told otherwise, and where its records go."""

    engine: EngineSpec
    model: Path
    how: How
    records: Path

    @contextmanager
    def served(
        self, folder: str = "records", limits: StartLimits | None = None
    ) -> Iterator[Endpoint]:
        records = self.records.with_name(folder)
        site = Site(records, limits=limits or StartLimits())
        with serve_vllm(resolve_engine(self.engine), self.model, site) as endpoint:
            yield endpoint

    def pids(self) -> list[int]:
        return [int(pid) for pid in (self.records / "pids").read_text(encoding="ascii").split()]


@pytest.fixture
def fake(engine: EngineSpec, model: Path, how: How, tmp_path: Path) -> Fake:
    how(FAKE_VLLM="ready")
    return Fake(engine, model, how, tmp_path / "records")


@pytest.fixture
def all_gone() -> Callable[[Iterable[int], float], bool]:
    """Whether processes are gone within some seconds."""

    def check(pids: Iterable[int], seconds: float) -> bool:
        give_up = time.monotonic() + seconds
        while left := [pid for pid in pids if _runs(pid)]:
            if time.monotonic() > give_up:
                sys.stderr.write(f"still there: {left}\n")
                return False
            time.sleep(0.05)
        return True

    return check


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
