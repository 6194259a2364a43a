"""Both arms of a run on stand-ins of vLLM: how often each server is started, and when.

The stand-in answers any question, so that no verdict is worth anything; whole runs go through it,
each in a process of its own, whose baseline is measured in another one.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import yaml

from harness import shipped
from tests.cli.conftest import Cli
from tests.tiers import slow
from tests.typed import Done

ROOT = Path(__file__).resolve().parents[2]
FAKE = ROOT / "tests" / "serve" / "vllm" / "fake_vllm.py"
ROOM = """
import harness.preflight.together
from harness.preflight.devices import Memory
harness.preflight.together.host_memory = lambda: Memory(64 << 30, 64 << 30)
"""
"""Whatever else runs on this machine."""
ONE_CORE = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
"""Where there is one, a CPU's servers are started in turn."""
LONG_SUITE = (
    f"{ONE_CORE}import harness.preflight.together as t\nt.outlasts_its_start = lambda *_: True"
)
B, C = "baseline", "candidate"
AHEAD = "serve: its process has imported for"
"""Of a server that was begun while its checkpoint was verified."""


@pytest.fixture(scope="module")
@slow("the canary is quantized, for runs in processes of their own")
def checkpoint(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "quantized"
    done = cli(
        "quantize", "--model", "canary", "--qformat", "nvfp4", "--calib-size", 16, "--out", folder
    )
    assert done.code == 0, done.err
    return (folder / "checkpoint").rename(folder.with_name("quantized-canary"))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = yaml.safe_load((shipped.suites() / "canary.yaml").read_text(encoding="utf-8"))
    few = [task | {"items": 40, "margin": 0.3} for task in values["tasks"][:1]]
    values |= {"name": "few", "tasks": few, "pooled_margin": None}
    path = tmp_path_factory.mktemp("suite") / "few.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@dataclass
class Runs:
    """Runs of one gate with one store of baselines."""

    command: tuple[str, ...]
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"HARNESS_BASELINES": str(self.folder / "store"), "PYTHONPATH": str(ROOT)}
        return os.environ | own | {"XDG_CACHE_HOME": str(self.folder / "cache")}

    @property
    def kept(self) -> Path:
        """The one entry of the store."""
        (entry,) = (path for path in (self.folder / "store").iterdir() if path.is_dir())
        return entry

    def how(self, **variables: str) -> None:
        """Say what the stand-in shall do."""
        said = json.dumps({"FAKE_VLLM": "ready", **variables})
        (self.folder / "how.json").write_text(said, encoding="utf-8")

    def typed(self, name: str = "run", fault: str = "") -> tuple[str, ...]:
        start = f"{ROOM}{fault}\nfrom harness.cli import run\nrun()"
        return (sys.executable, "-c", start, *self.command, "--run-dir", str(self.folder / name))

    def run(self, name: str = "run", fault: str = "") -> Done:
        done = subprocess.run(
            self.typed(name, fault),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def started(self) -> list[str]:
        """Return which arms' servers were started since the last look, in order."""
        path = self.folder / "starts"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [
            C if json.loads(line)["model"].endswith("quantized-canary") else B for line in lines
        ]

    def left(self) -> list[int]:
        """Return the processes of servers that still run."""
        lines = (self.folder / "starts").read_text(encoding="utf-8").splitlines()
        pids = [pid for line in lines for pid in json.loads(line)["pids"]]
        return [pid for pid in pids if psutil.pid_exists(pid) and not _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def prepared(folder: Path, checkpoint: Path, suite: Path) -> Runs:
    python = folder / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    script = f'FAKE_HOW={folder}/how.json exec {sys.executable} {FAKE} "$@"'
    python.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    python.chmod(0o755)
    command = ("gate", str(checkpoint), "--baseline", "canary", "--suite", str(suite))
    made = Runs((*command, "--engine", "vllm", "--vllm", str(python)), folder)
    made.how()
    return made


@pytest.fixture
def runs(checkpoint: Path, suite: Path, tmp_path: Path) -> Runs:
    return prepared(tmp_path, checkpoint, suite)


class First(NamedTuple):
    """A run that found an empty store."""

    runs: Runs
    done: Done
    started: list[str]


@pytest.fixture(scope="module")
def first(checkpoint: Path, suite: Path, tmp_path_factory: pytest.TempPathFactory) -> First:
    runs = prepared(tmp_path_factory.mktemp("first"), checkpoint, suite)
    return First(runs, runs.run(), runs.started())


def is_judged(done: Done) -> bool:
    """Whether a run came to a verdict; the stand-in knows no answer, so it is no GO."""
    return done.code == 5 and "baseline-too-weak" in done.out


def test_both_arms_are_served_at_once_and_each_is_started_once(first: First) -> None:
    assert is_judged(first.done), first.done
    assert sorted(first.started) == [B, C]
    assert "arms: at once" in first.done.err
    deployments = [
        first.runs.folder / "run" / "deployment.json",
        first.runs.kept / "deployment.json",
    ]
    cores = [
        next(one for one in json.loads(path.read_text())["arguments"] if "THREADS_BIND" in one)
        for path in deployments
    ]
    assert cores[0] != cores[1]
    assert AHEAD in first.done.err


def test_typed_again_nothing_is_started(first: First) -> None:
    again = first.runs.run()
    assert is_judged(again)
    assert first.runs.started() == []
    assert AHEAD not in again.err


def test_in_turn_the_baseline_answers_everything_before_the_candidate_is_started(
    runs: Runs,
) -> None:
    done = runs.run(fault=ONE_CORE)
    assert is_judged(done), done
    assert runs.started() == [B, C]
    assert "arms: in turn, the baseline first and whole; there is one CPU core" in done.err


def test_before_a_very_long_suite_the_smoke_answers_get_a_start_of_their_own(runs: Runs) -> None:
    done = runs.run(fault=LONG_SUITE)
    assert is_judged(done), done
    assert runs.started() == [B, C, B]


@pytest.mark.parametrize("fault", ["", ONE_CORE], ids=["at once", "in turn"])
@pytest.mark.parametrize(
    "lost",
    [("probe.json",), ("scorecard.json", "entry.json", "samples", "again", "tasks")],
    ids=["answers to the smoke set", "scores"],
)
def test_what_the_store_lacks_takes_one_start_of_the_baseline(
    first: First, runs: Runs, lost: tuple[str, ...], fault: str
) -> None:
    shutil.copytree(first.runs.folder / "store", runs.folder / "store")
    for name in lost:
        path = runs.kept / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    done = runs.run(fault=fault)
    assert is_judged(done), done
    assert sorted(runs.started()) == [B, C]


def test_a_candidate_that_fails_its_smoke_run_ends_the_baseline_too(runs: Runs) -> None:
    runs.how(FAKE_SALAD="quantized-canary")
    done = runs.run()
    assert done.code == 4, done.err
    assert "smoke-failed" in done.out
    assert runs.left() == []
    assert sorted(runs.started()) == [B, C]


@pytest.mark.parametrize("fault", ["", ONE_CORE], ids=["at once", "in turn"])
def test_a_baseline_that_fails_is_tried_once_and_its_own_error_is_said(
    runs: Runs, fault: str
) -> None:
    runs.how(FAKE_DIES="evals/canary", FAKE_LOG="this model is cursed")
    done = runs.run(fault=fault)
    assert done.code == 3, done.err
    assert runs.started().count(B) == 1
    assert "cursed" in done.out
    assert (done.out + done.err).count("FAILED in") == 1


def test_a_server_that_finds_no_memory_beside_the_other_is_started_again_alone(
    runs: Runs,
) -> None:
    runs.how(FAKE_ROOM="1")
    done = runs.run()
    assert is_judged(done), done
    started = runs.started()
    # The one that came first may have to give its place to the other, which it cannot do without.
    assert len(started) in (3, 4)
    assert set(started) == {B, C}
    assert "arms: the " in done.err
    assert "too little memory beside" in done.err


def test_two_runs_at_once_measure_one_baseline(runs: Runs) -> None:
    processes = [
        subprocess.Popen(
            runs.typed(name),
            env=runs.environment,
            cwd=runs.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("one", "other")
    ]
    assert [process.wait() for process in processes] == [5, 5]
    assert sorted(runs.started()) == [B, C, C]


def test_an_interrupt_ends_both_arms_and_nothing_is_left(runs: Runs) -> None:
    runs.how(FAKE_STALLS="canary")
    with subprocess.Popen(
        runs.typed(),
        env=runs.environment,
        cwd=runs.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        ready = 0
        for line in process.stderr:
            ready += "serve: ready" in line
            if ready == 2:
                process.send_signal(signal.SIGINT)
                break
        process.stderr.read()
        assert process.wait() == 130
    assert runs.left() == []
    runs.how()
    runs.started()
    assert is_judged(runs.run())
    assert sorted(runs.started()) == [B, C]
