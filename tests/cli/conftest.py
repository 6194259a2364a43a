"""The command line, typed in this process, or as a user does in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.small_suite import write_small_suite
from tests.tiers import slow
from tests.typed import Done, typed

Cli = Callable[..., Done]


@pytest.fixture(scope="session")
def baselines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("baselines")


@pytest.fixture(scope="session")
def environment(baselines: Path) -> dict[str, str]:
    return os.environ | {"HARNESS_BASELINES": str(baselines)}


@pytest.fixture(scope="session")
def cli(baselines: Path) -> Cli:
    """Type a command in this process: enough where its ending, texts and files are looked at."""

    return partial(typed, env={"HARNESS_BASELINES": str(baselines)})


@pytest.fixture(scope="session")
@slow("each command is a process of its own, which imports torch and more anew")
def cli_process(environment: dict[str, str]) -> Cli:
    """Type a command as a user does."""

    def run(*arguments: object, cwd: Path | None = None, fault: str = "") -> Done:
        """Run a command; `fault` is Python that first puts a fault into the process."""
        start = (
            ["-c", f"{fault}\nfrom harness.cli import app\napp()"] if fault else ["-m", "harness"]
        )
        done = subprocess.run(
            [sys.executable, *start, *map(str, arguments)],
            env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


class Serving(NamedTuple):
    """`harness serve` as a user typed it."""

    url: str
    key: str
    process: subprocess.Popen[str]


@contextmanager
def serving(folder: Path, environment: dict[str, str]) -> Iterator[Serving]:
    """Serve a folder with vLLM until the context ends."""
    command = ["serve", str(folder), "--engine", "vllm", "--max-model-len", "256", "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        env=environment | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        try:
            told = json.loads("".join(lines))
            yield Serving(told["base_url"], told["api_key"], process)
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def quick_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="session")
def quick(quick_suite: Path) -> tuple[str, ...]:
    """Arguments of a run on the canary that takes seconds."""
    return ("e2e", "--model", "canary", "--suite", str(quick_suite), "--calib-size", "64")


@pytest.fixture(scope="session")
def narrow_qwen3(tiny_qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model whose MLPs are 40 wide, which no block of 16 divides."""
    path = tmp_path_factory.mktemp("models") / "narrow"
    shutil.copytree(tiny_qwen3, path, ignore=shutil.ignore_patterns("*.safetensors"))
    config = Qwen3Config.from_pretrained(tiny_qwen3, intermediate_size=40)
    build: Callable[[Qwen3Config], Qwen3ForCausalLM] = Qwen3ForCausalLM
    model = build(config)
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(path)
    return path
