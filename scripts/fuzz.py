"""Fuzz every reader of files that others wrote, and print what it took.

    python -m scripts.fuzz [--examples 20000] [--seed N] [--record] [READER ...]

All are read in a process of their own, under the limits of tests/fuzz/limited_run.py. The exit
status is 1 where one ended in anything but a value or an error of ours; `--record` adds a row to
the ledger.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from scripts import ledger
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Run all readers; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", default=[target.name for target in TARGETS])
    parser.add_argument("--examples", type=int, default=20_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little") + 1)
    parser.add_argument("--record", action="store_true", help="add a row to the ledger")
    arguments = parser.parse_args()
    started = time.monotonic()
    print(f"seed {arguments.seed}")
    print(f"{'reader':28}{'examples':>9}{'refused':>9}{'slowest CPU s':>15}{'memory MB':>11}")
    rows = []
    for row in _rows(arguments.readers, arguments.examples, arguments.seed):
        rows.append(row)
        print(
            f"{row['reader']:28}{row['examples']:9}{row['refused']:9}{row['slowest_cpu_s']:15.2f}"
            f"{row['grown_mb']:11}",
            flush=True,
        )
        if row["problem"]:
            print(row["problem"])
    if len(rows) < len(arguments.readers):
        print(f"the process that reads ended at '{arguments.readers[len(rows)]}'")
        return 1
    failed = [row["reader"] for row in rows if row["problem"]]
    values = {
        "examples": sum(row["examples"] for row in rows),
        "refused": sum(row["refused"] for row in rows),
        "readers with another exception": len(failed),
        "slowest example, CPU s": max(row["slowest_cpu_s"] for row in rows),
        "most memory above the imports, MB": max(row["grown_mb"] for row in rows),
        "minutes": round((time.monotonic() - started) / 60, 1),
    }
    print(values)
    if arguments.record and not failed:
        command = f"python -m scripts.fuzz --examples {arguments.examples} --seed {arguments.seed}"
        ledger.append("Fuzz of every reader", command=command, values=values)
    return 1 if failed else 0


def _rows(readers: list[str], examples: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield what happened to each reader, all in one process under limits."""
    command = [sys.executable, "-m", "tests.fuzz.limited_run", str(examples), str(seed)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        [*command, *readers], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None  # noqa: S101 -- a pipe was asked for
        for line in process.stdout:
            if line.startswith('{"reader"'):
                yield json.loads(line)


if __name__ == "__main__":
    sys.exit(main())
