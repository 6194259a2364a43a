"""Print what it takes to type a finished run again on a large checkpoint.

    python -m scripts.retype_time [--gib 2] [--tree DIR] [--record]

The checkpoint is the canary's with a file of `--gib` GiB beside its weights, which counts for its
identity like any other. It is gated once, to GO; then the same command is typed again, as it is and
with --paranoid. A read is one of all the checkpoint's bytes; what a process reads of its libraries
counts too. `--tree` is another checkout of harness, such as one of an older commit, whose command
line is run instead.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from scripts import ledger

ROOT = Path(__file__).resolve().parents[1]
_CHUNK = 1 << 24
_LOOK_S = 0.01
_SETTLED_S = 3
"""After which a file's hash is remembered."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--tree", type=Path, default=ROOT)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        values = measure(Path(name), arguments.tree.resolve(), arguments.gib)
    for what, value in values.items():
        print(f"{what}: {value}", flush=True)
    if arguments.record:
        ledger.append(
            f"Typing a finished gate of a checkpoint of {arguments.gib:g} GiB again",
            command="python -m scripts.retype_time --record",
            values=values,
        )


def measure(folder: Path, tree: Path, gib: float) -> dict[str, object]:
    """Return what each command took."""
    made = ("quantize", "--model", "canary", "--qformat", "nvfp4", "--calib-size", "64")
    run(tree, folder, *made, "--out", folder / "made")
    checkpoint = folder / "made" / "checkpoint"
    with (checkpoint / "notes.txt").open("wb") as file:
        for _ in range(int(gib * (1 << 30)) // _CHUNK):
            file.write(os.urandom(_CHUNK))
    time.sleep(_SETTLED_S)
    gate = ("gate", checkpoint, "--baseline", "canary", "--suite", "drill", "--run-dir")
    command = (*gate, folder / "run")
    first = run(tree, folder, *command)
    again = min(run(tree, folder, *command) for _ in range(3))
    whole = sum(path.stat().st_size for path in checkpoint.iterdir())
    values: dict[str, object] = {
        "the first run": f"{first.seconds:.1f} s, {first.num_bytes / whole:.2f} reads",
        "typed again": f"{again.seconds:.1f} s, {again.num_bytes / whole:.2f} reads",
    }
    if tree == ROOT:
        paranoid = run(tree, folder, *command, "--paranoid")
        values["typed again with --paranoid"] = (
            f"{paranoid.seconds:.1f} s, {paranoid.num_bytes / whole:.2f} reads"
        )
    return values


class Ran(NamedTuple):
    """What a command took."""

    seconds: float
    num_bytes: int
    """Read by it, its libraries included."""


def run(tree: Path, folder: Path, *arguments: object) -> Ran:
    """Run a command of `tree`, which must end with 0."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HARNESS_BASELINES": str(folder / "baselines"),
    }
    command = [sys.executable, "-m", "harness", "--quiet", *map(str, arguments)]
    started, num_bytes = time.perf_counter(), 0
    with psutil.Popen(command, env=environment, cwd=tree, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                num_bytes = process.io_counters().read_chars
            time.sleep(_LOOK_S)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Ran(time.perf_counter() - started, num_bytes)


if __name__ == "__main__":
    main()
