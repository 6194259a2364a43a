"""Quantize every family by algorithms that need inputs; say how each ends.

    python -m scripts.family_table.algorithms [NAME ...] [--work FOLDER] [--part 1/2]
        [--qformats nvfp4_awq_local_hessian_gptaq,nvfp4_awq_gptq]

Each family is a tiny random model (scripts/families), calibrated with 32 samples of 64 tokens, so
that experts see few tokens and inputs have outliers. What `verify --source` then finds wrong is
wrong with harness: nothing was damaged. A line says of each family what was refused or found; the
last count. What was asked is kept in FOLDER and not asked again, and whoever has two cores takes a
part of the families on each.
"""

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

import harness.cli.commands  # noqa: F401 -- imported once, for all that are forked
from scripts.families.catalogue import names
from scripts.families.make import make
from scripts.family_table import ours
from scripts.family_table.forks import Found, in_a_fork

_FORMATS = "nvfp4_awq_local_hessian_gptaq,nvfp4_awq_gptq"


def main() -> None:
    """Ask what is not known and print the lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--work", type=Path, default=Path("runs/family-algorithms"))
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--qformats", default=_FORMATS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    ours.write_calibration(asked.work / "calibration.jsonl")
    qformats = asked.qformats.split(",")
    part, parts = map(int, asked.part.split("/"))
    chosen = (asked.names or names())[part - 1 :: parts]
    print(_counted([_ask(asked.work, qformats, name) for name in chosen], qformats))


def _ask(work: Path, qformats: Sequence[str], name: str) -> Mapping[str, str]:
    """Return how a family ended in each format: what is wrong, or nothing."""
    kept = work / f"{name}.json"
    if not kept.is_file():
        done = in_a_fork(partial(_ended, work, qformats, name), work / f"{name}.told")
        found = done.get("ended") or dict.fromkeys(qformats, done["error"])
        kept.write_text(json.dumps(found), encoding="utf-8")
    ended: Mapping[str, str] = json.loads(kept.read_bytes())
    print(f"{name}: {'; '.join(sorted(set(ended.values()) - {''})) or 'clean'}", flush=True)
    return ended


def _ended(work: Path, qformats: Sequence[str], name: str) -> Found:
    folder = work / name
    try:
        make(name, folder)
        return {"ended": {one: _made(folder, name, one, work) for one in qformats}}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(folder: Path, name: str, qformat: str, work: Path) -> str:
    """Quantize and verify; return what is wrong."""
    model, out = folder / name, folder / qformat
    done = ours.quantize(model, qformat, work / "calibration.jsonl", out, "--layerwise")
    return str(done["error"] or ours.verify(out / "checkpoint", model)["error"] or "")


def _counted(found: Sequence[Mapping[str, str]], qformats: Sequence[str]) -> str:
    lines = []
    for one in qformats:
        ended = [family[one] for family in found]
        refused = sum("exit 2" in e for e in ended)
        wrong = sum(bool(e) and "exit 2" not in e for e in ended)
        clean = len(ended) - refused - wrong
        lines.append(f"{one}: {clean} of {len(ended)} clean, {refused} refused, {wrong} wrong")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
