"""Print the share of each stage in the canary's run, from nothing to the verdict.

    python -m scripts.stage_times [--qformat nvfp4] [--record]

Runs the command in a fresh run directory with no baseline kept from before. `--record` adds a
row to the ledger.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts import ledger

LIMIT_S = 300
"""From installed to verdict, on 2 cores."""


def main() -> int:
    """Measure, print, and fail when the run ends without GO or takes too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qformat", default="nvfp4")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "harness", "e2e", "--model", "canary", "--qformat", arguments.qformat]
        run_dir = Path(folder) / "run"
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, *command, "--run-dir", str(run_dir)],
            env=os.environ | {"HARNESS_BASELINES": f"{folder}/baselines"},
            check=False,
        )
        total = time.monotonic() - started
        seconds = json.loads((run_dir / "stage_seconds.json").read_text(encoding="utf-8"))
    seconds = {"start and preflight": total - sum(seconds.values()), **seconds}
    shares = {stage: f"{value / total:.1%}" for stage, value in seconds.items()}
    for stage, share in shares.items():
        print(f"{stage:<20} {share:>6}")
    in_time = total < LIMIT_S
    print(f"under {LIMIT_S // 60} minutes: {'yes' if in_time else 'no'}; exit {done.returncode}")
    if arguments.record:
        ledger.append(
            f"Share of each stage in the canary's {arguments.qformat} run",
            command="python -m scripts.stage_times --record",
            values=shares | {f"under {LIMIT_S // 60} minutes": "yes" if in_time else "no"},
        )
    return done.returncode or int(not in_time)


if __name__ == "__main__":
    sys.exit(main())
