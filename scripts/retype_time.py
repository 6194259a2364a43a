"""Print what it takes to type a finished run again on a large checkpoint.

    python -m scripts.retype_time [--gib 2] [--tree DIR] [--record]

The checkpoint is the canary's with a file of `--gib` GiB beside its weights, which counts for its
identity like any other. It is gated once, to GO; then the same command is typed again, as it is and
with --paranoid, and the whole is held against reading the folder's bytes once. `--tree` is another
checkout of harness, such as one of an older commit, whose command line is timed instead.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts import ledger

ROOT = Path(__file__).resolve().parents[1]
_CHUNK = 1 << 24
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
    """Return the times as multiples of one read of the checkpoint."""
    made = ("quantize", "--model", "canary", "--qformat", "nvfp4", "--calib-size", "64")
    run(tree, folder, *made, "--out", folder / "made")
    checkpoint = folder / "made" / "checkpoint"
    with (checkpoint / "notes.txt").open("wb") as file:
        for _ in range(int(gib * (1 << 30)) // _CHUNK):
            file.write(os.urandom(_CHUNK))
    time.sleep(_SETTLED_S)
    gate = ("gate", checkpoint, "--baseline", "canary", "--suite", "drill", "--run-dir")
    first_s = run(tree, folder, *gate, folder / "run")
    again_s = min(run(tree, folder, *gate, folder / "run") for _ in range(3))
    started_s = min(run(tree, folder, "--version") for _ in range(3))
    read_s = read(checkpoint)
    values: dict[str, object] = {
        "one read of its bytes, from memory": f"{read_s:.2f} s",
        "the first run": f"{first_s / read_s:.1f} reads",
        "typed again": f"{again_s / read_s:.2f} reads ({again_s:.1f} s)",
        "of that, starting Python and nothing else": f"{started_s / read_s:.2f} reads",
    }
    if tree == ROOT:
        paranoid_s = run(tree, folder, *gate, folder / "run", "--paranoid")
        values["typed again with --paranoid"] = f"{paranoid_s / read_s:.2f} reads"
        values["hashing all of it, which that adds"] = f"{(paranoid_s - again_s) / read_s:.2f}"
    return values


def run(tree: Path, folder: Path, *arguments: object) -> float:
    """Run a command of `tree`, which must end with 0; return the seconds it took."""
    environment = os.environ | {
        "PYTHONPATH": str(tree),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "HARNESS_BASELINES": str(folder / "baselines"),
    }
    started = time.perf_counter()
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    subprocess.run(command, env=environment, cwd=tree, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def read(folder: Path) -> float:
    """Return the seconds that one read of a folder's bytes takes, the fastest of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for path in folder.iterdir():
            with path.open("rb", buffering=0) as file:
                while file.read(_CHUNK):
                    pass
        times.append(time.perf_counter() - started)
    return min(times)


if __name__ == "__main__":
    main()
