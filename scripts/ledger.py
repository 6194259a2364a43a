"""The ledger of what was measured: one JSON row a claim, never edited, shown in LEDGER.md.

    python -m scripts.ledger            # write evals/LEDGER.md from evals/ledger.jsonl

A wrong row is superseded by a later one of the same claim, never changed.
"""

import datetime as dt
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "evals" / "ledger.jsonl"
PAGE = ROOT / "evals" / "LEDGER.md"
_PACKAGES = ("torch", "transformers", "lm_eval", "nvidia-modelopt", "flash-linear-attention")
_INTRO = """# Ledger

What was measured, by which command, on what. Generated from `ledger.jsonl` by
`python -m scripts.ledger`; rows are added, never edited.
"""


def append(claim: str, *, command: str, values: Mapping[str, object]) -> None:
    """Add a row about this machine and commit, and write the page again."""
    row = {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "commit": _commit(),
        "claim": claim,
        "command": command,
        "hardware": hardware(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "values": dict(values),
    }
    with LEDGER.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
    PAGE.write_text(render(), encoding="utf-8")


def render() -> str:
    """Return LEDGER.md."""
    parts = [_INTRO]
    for line in LEDGER.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items())
        values = "\n".join(f"| {k} | {v} |" for k, v in row["values"].items())
        parts.append(
            f"## {row['claim']}\n\n`{row['command']}`\n\n"
            f"{row['date']}, commit {row['commit']}, {row['hardware']}; {versions}\n\n"
            f"| what | value |\n| --- | --- |\n{values}\n"
        )
    return "\n".join(parts)


def hardware() -> str:
    """Return what computes, without naming the machine."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} threads of a {platform.machine()} CPU"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - git of the developer's PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
