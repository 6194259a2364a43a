"""Print the time from command to verdict of the canary, beside that of scoring one arm.

    python -m scripts.arms_time [--before TREE] [--vllm PYTHON] [--items N] [--gate] [--record]

Each round has a store of baselines of its own, which is empty, so both arms are served and scored;
then the command is typed once more with what that store holds now; then the candidate alone is
scored. The first arm of all is not counted: a fresh machine reads its engine from the disk. TREE is
another checkout, such as one that `git worktree add` made, whose runs take turns with these. The
suite is the canary's with at most N items a task and its smoke set. With `--gate` a checkpoint is
judged that is there already. How often a server was started is counted in what the runs say.
"""

import argparse
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

from harness import shipped
from scripts import ledger

ROOT = Path(__file__).resolve().parents[1]
_AFTER, _KEPT, _ARM = "after", "after, baseline kept", "one arm"
_START = re.compile(r"serve: ready after ([0-9.]+) s")


class Run(NamedTuple):
    """One command, from when it was typed to its verdict."""

    seconds: float
    code: int
    starts: tuple[float, ...]
    """Seconds that each server took to start."""


def main() -> int:
    """Measure and print."""
    arguments = _parse()
    trees = {"before": arguments.before.resolve()} if arguments.before else {}
    trees[_AFTER] = ROOT
    found: dict[str, list[Run]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint, served = folder / "checkpoint", ["--engine", "vllm"]
        served += ["--suite", str(_suite(folder / "suite.yaml", arguments.items))]
        served += ["--vllm", str(arguments.vllm.absolute())] if arguments.vllm else []
        served += arguments.option
        making = ["--model", "canary", "--qformat", "nvfp4"]
        _harness(ROOT, ["quantize", *making, "--out", str(checkpoint)], folder)
        judging = ["gate", str(checkpoint / "checkpoint"), "--baseline", "canary"]
        typed = judging if arguments.gate else ["e2e", *making]
        typed += served
        arm = ["score", str(checkpoint / "checkpoint"), *served]
        _timed(ROOT, arm, folder / "first", "--out")
        for number in range(arguments.rounds):
            for tree, path in trees.items():
                into = folder / f"{tree}-{number}"
                found[tree].append(_told(tree, _timed(path, typed, into)))
            into = folder / f"{_AFTER}-{number}"
            found[_KEPT].append(_told(_KEPT, _timed(ROOT, typed, into, run="again")))
            found[_ARM].append(_told(_ARM, _timed(ROOT, arm, folder / f"arm-{number}", "--out")))
    values = _values(found)
    for what, value in values.items():
        print(f"{what:<40} {value}")
    if arguments.record:
        ledger.append(
            "Time from command to verdict of the canary in vLLM, beside that of one arm",
            command=shlex.join(["python", "-m", "scripts.arms_time", *sys.argv[1:]]),
            values=values,
        )
    return max(run.code for runs in found.values() for run in runs)


def _told(name: str, run: Run) -> Run:
    print(f"{name}: {run.seconds:.0f} s, exit {run.code}, starts {run.starts}", flush=True)
    return run


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="Another tree of harness.")
    parser.add_argument("--vllm", type=Path, help="Python of vLLM's environment.")
    parser.add_argument("--items", type=int, default=100, help="Of each task, at most.")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--gate", action="store_true", help="Judge a checkpoint that is there.")
    parser.add_argument("--option", action="append", default=[], help="For all, such as --a=b.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    return parser.parse_args()


def _suite(path: Path, items: int) -> Path:
    values = yaml.safe_load((shipped.suites() / "canary.yaml").read_text(encoding="utf-8"))
    for task in values["tasks"]:
        task["items"], task["margin"] = min(task["items"], items), 0.4
    values |= {"name": "cut", "pooled_margin": None}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def _timed(
    tree: Path, command: list[str], folder: Path, out: str = "--run-dir", *, run: str = "run"
) -> Run:
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    done = _harness(tree, [*command, out, str(folder / run)], folder)
    seconds = time.perf_counter() - started
    if done.returncode not in (0, 4, 5):
        sys.exit(done.stderr)
    starts = tuple(float(found) for found in _START.findall(done.stderr))
    return Run(seconds, done.returncode, starts)


def _harness(tree: Path, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")]).rstrip(":"),
        "HARNESS_BASELINES": str(folder / "baselines"),
    }
    return subprocess.run(
        [sys.executable, "-m", "harness", *command],
        cwd=folder,  # another than the tree, whose modules must be found by its name
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _values(found: Mapping[str, list[Run]]) -> dict[str, str]:
    values = {}
    for name, runs in found.items():
        starts = "; ".join(", ".join(f"{one:.0f} s" for one in run.starts) for run in runs)
        values[f"{name}: from command to its end"] = ", ".join(f"{r.seconds:.0f} s" for r in runs)
        values[f"{name}: starts of a server"] = f"{len(runs[0].starts)} ({starts})"
        values[f"{name}: exit codes"] = ", ".join(str(run.code) for run in runs)
    middle = {name: statistics.median(run.seconds for run in runs) for name, runs in found.items()}
    for name in (_AFTER, _KEPT):
        values[f"{name}, over one arm"] = f"{middle[name] / middle[_ARM]:.2f}"
    if "before" in middle:
        values["after over before"] = f"{middle[_AFTER] / middle['before']:.2f}"
    return values


if __name__ == "__main__":
    sys.exit(main())
