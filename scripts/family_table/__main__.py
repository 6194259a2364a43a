"""Ask of every family of decoders what harness, Model-Optimizer and vLLM make of it; print a table.

    python -m scripts.family_table [NAME ...] [--work FOLDER] [--again WHAT ...] [--into FILE]

Each family is a tiny random model (scripts/families). Asked is: quantized to NVFP4 and FP8 in every
layout in which it lies on disk, layer by layer as well as whole; clean in `verify --source`; equal,
range by range and tensor by tensor, to Model-Optimizer's export of the same samples (the `parity`
extra); loaded by vLLM's CPU build without a rest, and answered there as the reference engine does.
Answers are kept in FOLDER and not asked again, unless `--again` names the kind (`made`,
`quantized`, `reference`, `rounded`, `peer`, `parity`, `vllm`). `--into` writes the table into a
Markdown file, between two marks.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from scripts.families.catalogue import names
from scripts.family_table import engine, ours, table
from scripts.family_table.measure import (
    Place,
    by_harness,
    compared,
    engine_jobs,
    engine_peer_jobs,
    peer_jobs,
)

_STEPS = ("harness", "peer", "vllm")


def main() -> int:
    """Ask what is not known and print the table."""
    asked = _parse()
    _quiet()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    places = [Place(work, name) for name in asked.names or names()]
    _forget(places, asked.again)
    if "harness" in asked.steps:
        _harness(places, work / "calibration.jsonl")
    if "peer" in asked.steps:
        _peer(places, work)
    if "vllm" in asked.steps and asked.vllm.exists():
        for jobs_of in (engine_jobs, engine_peer_jobs):
            jobs = [job for place in places for job in jobs_of(place)]
            engine.load_all(jobs, asked.vllm, work)
    written = table.markdown(places)
    print(written)
    if asked.into:
        table.write(written, asked.into)
    return 0


def _forget(places: Sequence[Place], kinds: Sequence[str]) -> None:
    """Remove answers of these kinds, so that they are asked again."""
    for place in places:
        for path in [path for kind in kinds for path in place.folder.glob(f"{kind}*")]:
            path.unlink()


def _harness(places: Sequence[Place], calibration: Path) -> None:
    ours.write_calibration(calibration)
    for place in places:
        by_harness(place, calibration)
        print(table.line(place), file=sys.stderr, flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="families; all without")
    parser.add_argument("--work", type=Path, default=Path("runs/families"))
    parser.add_argument("--again", nargs="*", default=[], help="kinds of answers to ask again")
    parser.add_argument("--steps", nargs="*", default=_STEPS, choices=_STEPS)
    parser.add_argument("--vllm", type=Path, default=engine.default_python())
    parser.add_argument("--into", type=Path, help="Markdown file that gets the table")
    return parser.parse_args()


def _quiet() -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("harness").setLevel(logging.WARNING)
    torch.set_num_threads(1)


def _peer(places: Sequence[Place], work: Path) -> None:
    """Let Model-Optimizer do what it has not done, in a process that imports it, and compare."""
    jobs = [job for place in places for job in peer_jobs(place)]
    if not all(Path(job["result"]).exists() for job in jobs):
        request = work / "peer_jobs.json"
        request.write_text(json.dumps(jobs), encoding="utf-8")
        command = [sys.executable, "-m", "scripts.family_table.peer", str(request)]
        with (work / "peer.log").open("a", encoding="utf-8") as log:
            subprocess.run(command, stdout=log, stderr=log, env=os.environ, check=False)
    for place in places:
        for qformat in ours.FORMATS:
            compared(place, qformat)


if __name__ == "__main__":
    sys.exit(main())
