"""PTQ of a random model in one process and in several, a GPU each: same bytes, and how much faster.

    python -m scripts.bench.ranks --shape qwen3.6-35b-a3b --layers 8 --device cuda --into /dev/shm
    python -m scripts.bench.ranks --ranks 2 --samples 8 --seq 32 --batch 2 --device cpu

Forward and quantization are compared as the first rank sees them; what all of it takes contains the
start of the other processes, which import what this one has imported before. Ends with 1 where the
bytes differ.
"""

import argparse
import dataclasses
import logging
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from harness.export import CheckpointWriter
from harness.making import calibrate_and_write, complete
from harness.preflight import Job, preflight
from harness.recipe import Request
from scripts import ledger
from scripts.bench.__main__ import make, recipe_of
from scripts.bench.shapes import SHAPES

_PARTS = re.compile(r"(quantized|ran) ([0-9.]+) s")


class Found(NamedTuple):
    """What one way of making the checkpoint took."""

    digest: str
    computing_s: float
    all_s: float


def main() -> int:
    """Make the model, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--layers", type=int, help="Decoder layers; default: the shape's.")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64, help="Samples of a batch.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--into", type=Path, help="Where to write; default: /tmp.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.into) as folder:
        values, is_same = measure(arguments, Path(folder))
    for name, value in values.items():
        print(f"{name}: {value}", flush=True)
    if arguments.record:
        command = shlex.join(["python", "-m", "scripts.bench.ranks", *sys.argv[1:]])
        layers = f", {arguments.layers} layers" if arguments.layers else ""
        claim = f"NVFP4 PTQ in several processes, shape {arguments.shape}{layers}"
        ledger.append(claim, command=command, values=values)
    return 0 if is_same else 1


def measure(arguments: argparse.Namespace, root: Path) -> tuple[dict[str, str], bool]:
    """Return what was found, and whether the bytes were the same."""
    values = make(arguments, root / "model", root / "ids.jsonl")
    recipe = recipe_of(arguments, root / "recipe.yaml")
    request = Request(
        model=str(root / "model"),
        recipe=recipe,
        calib_data=str(root / "ids.jsonl"),
        calib_size=arguments.samples,
        calib_seq=arguments.seq,
        device=arguments.device,
        layerwise=True,
        ranks=arguments.ranks,
    )
    job = preflight(request, scored=False)
    alone = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, ranks=1))
    _run(alone, root / "run")  # compiles what is compiled
    one, several = _run(alone, root / "run"), _run(job, root / "run")
    words, faster = f"{arguments.ranks} processes", one.computing_s / several.computing_s
    values |= {
        "1 process: forward and quantize": f"{one.computing_s:.2f} s",
        "1 process: all": f"{one.all_s:.2f} s",
        f"{words}: forward and quantize": f"{several.computing_s:.2f} s",
        f"{words}: all, with their start": f"{several.all_s:.2f} s",
        f"forward and quantize, 1 over {arguments.ranks}": f"{faster:.2f}",
        "same bytes": "yes" if one.digest == several.digest else "no",
    }
    return values, one.digest == several.digest


def _run(job: Job, into: Path) -> Found:
    """Make a checkpoint, as the pipeline does, and forget it."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("harness.calibrate")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    started = time.perf_counter()
    try:
        with CheckpointWriter(job.source, job.plan, into=into) as writer:
            checkpoint = complete(job, writer, calibrate_and_write(job, writer))
    finally:
        logger.removeHandler(handler)
    seconds = time.perf_counter() - started
    parts = _PARTS.findall(next(line for line in lines if "ran " in line))
    return Found(checkpoint.digest, sum(float(value) for _, value in parts), seconds)


if __name__ == "__main__":
    sys.exit(main())
