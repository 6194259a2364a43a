"""A stand-in for vLLM's environment, and what is left of a server."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest

from harness.artifacts import EngineSpec

FAKE = Path(__file__).with_name("fake_vllm.py")


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """The `bin/python` of an environment whose vLLM is fake_vllm.py."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return python


@pytest.fixture
def engine(fake_python: Path) -> EngineSpec:
    return EngineSpec(
        name="vllm",
        numerics="declared",
        device="cpu",
        dtype="bfloat16",
        max_model_len=64,
        vllm=str(fake_python),
    )


@pytest.fixture
def model(tiny_qwen3_5_moe: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny_qwen3_5_moe, folder)
    return folder


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
