"""Processes of torchrun on two machines, as far as one machine can be two, make what one makes."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from harness.artifacts import RunRecord
from harness.errors import UsageError
from harness.nodes import launched, ranks_here
from harness.runs import read_run
from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
START = Callable[..., list[subprocess.Popen[str]]]


class Ended(NamedTuple):
    code: int
    said: str


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def quantizing(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("-m", "harness", "quantize", "--model", str(model), "--qformat", "nvfp4"),
        *("--kv-cache-qformat", "fp8", "--calib-data", str(data), "--calib-size", "12"),
        *("--calib-seq", "64", "--device", "cpu", "--layerwise", "--out", str(out), *more),
    ]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | {"PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}


@pytest.fixture
@slow("two torchrun, each with a process that imports torch and quantizes")
def start(tmp_path: Path) -> Iterator[START]:
    """Return a function that starts a torchrun for each command, as a machine of its own."""
    running: list[subprocess.Popen[str]] = []

    def started(*commands: Sequence[str]) -> list[subprocess.Popen[str]]:
        port = free_port()
        for number, command in enumerate(commands):
            typed = [
                *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"),
                *("--nnodes", str(len(commands)), "--rdzv-backend", "c10d", "--rdzv-id", "test"),
                *("--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", *command),
            ]
            with (tmp_path / f"node-{number}.log").open("w") as log:
                running.append(
                    subprocess.Popen(
                        typed, stdout=log, stderr=subprocess.STDOUT, env=environment(), text=True
                    )
                )
        return running

    yield started
    for one in running:
        if one.poll() is None:
            one.terminate()
        one.wait()


def ended(running: Sequence[subprocess.Popen[str]], folder: Path) -> list[Ended]:
    return [
        Ended(one.wait(), (folder / f"node-{number}.log").read_text())
        for number, one in enumerate(running)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): one.read_bytes() for one in files}


@pytest.mark.parametrize("family", ["qwen3_5_moe", "mixtral"])
def test_two_machines_write_what_one_process_writes(
    tiny_models: dict[str, Path], calibration_jsonl: Path, tmp_path: Path, start: START, family: str
) -> None:
    model, alone, both = tiny_models[family], tmp_path / "alone", tmp_path / "both"
    typed = [sys.executable, *quantizing(model, calibration_jsonl, alone)]
    subprocess.run(typed, check=True, env=environment(), stdout=subprocess.DEVNULL)
    command = quantizing(model, calibration_jsonl, both)
    nodes = ended(start(command, command), tmp_path)
    assert [one.code for one in nodes] == [0, 0], "\n".join(one.said for one in nodes)
    assert contents(both / "checkpoint") == contents(alone / "checkpoint")
    name = "calibration.safetensors"
    assert (both / name).read_bytes() == (alone / name).read_bytes()
    assert sum("process 1 of 2 has done its share" in one.said for one in nodes) == 1


def test_a_process_without_torchrun_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():  # as Slurm's and Kubernetes' operators set them, too
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert launched() is None
    assert ranks_here(3) == 3


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    launch = launched()
    assert launch is not None
    assert (launch.number, launch.count, launch.place, launch.num_here) == (3, 4, 1, 2)
    assert ranks_here(4) == 2


def test_half_of_what_torchrun_says_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="Start it by torchrun, or unset TORCHELASTIC_RUN_ID"):
        launched()


def test_machines_that_were_told_different_things_make_nothing(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path: Path, start: START
) -> None:
    out = tmp_path / "out"
    commands = [
        quantizing(tiny_qwen3, calibration_jsonl, out),
        [*quantizing(tiny_qwen3, calibration_jsonl, out), "--calib-size", "11"],
    ]
    nodes = ended(start(*commands), tmp_path)
    assert all(one.code for one in nodes)
    for node in nodes:
        assert "has another calibration setting" in node.said
        assert "Type the same command on every machine" in node.said
    assert not (out / "checkpoint").exists()


def test_machines_that_share_no_folder_are_told_so(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path: Path, start: START
) -> None:
    outs = [tmp_path / name for name in ("one", "other")]
    nodes = ended(
        start(*(quantizing(tiny_qwen3, calibration_jsonl, out) for out in outs)), tmp_path
    )
    assert all(one.code for one in nodes)
    assert "does not see '" in "".join(one.said for one in nodes)
    assert not any((out / "checkpoint").exists() for out in outs)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_machine_that_is_killed_ends_the_other_and_the_command_typed_again_continues(
    tiny_qwen3: Path, calibration_jsonl: Path, tmp_path: Path, start: START, victim: int
) -> None:
    out = tmp_path / "out"
    command = quantizing(tiny_qwen3, calibration_jsonl, out)
    running = start(command, command)
    rank_of(victim, running, out).kill()
    nodes = ended(running, tmp_path)
    assert all(one.code for one in nodes), "\n".join(one.said for one in nodes)
    assert not (out / "checkpoint").exists()
    if victim == 1:  # its torchrun may tell the other one before the connections do
        assert failure_of(read_run(out)) in {"system-refused", "interrupted"}
    nodes = ended(start(command, command)[2:], tmp_path)
    assert [one.code for one in nodes] == [0, 0], "\n".join(one.said for one in nodes)
    assert read_run(out).failure is None


def failure_of(record: RunRecord) -> str:
    assert record.failure is not None
    return record.failure.reason_code


def rank_of(number: int, running: Sequence[subprocess.Popen[str]], out: Path) -> psutil.Process:
    """Wait until the run is at work, and return the process of a rank."""
    while not (out / "checkpoint.partial").exists():
        assert all(one.poll() is None for one in running)
        time.sleep(0.02)
    found = [
        one
        for agent in running
        for one in psutil.Process(agent.pid).children(recursive=True)
        if one.environ().get("RANK") == str(number)
    ]
    return found[0]
