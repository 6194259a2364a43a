"""How the time and the memory of PTQ grow with layers, experts and tokens: a table and a plot.

    python -m scripts.bench.growth --record
    python -m scripts.bench.growth --shape 3b --samples 1024 --seq 512 --batch 64 --into /dev/shm

Each quantity is doubled twice while the others stay; the time of the smallest is 1. What grows in
proportion ends at 4 at most. Writes evals/plots/growth.svg.
On a GPU more than 1,023 experts run one by one.
"""

import argparse
import dataclasses
import shlex
import sys
import tempfile
from pathlib import Path

import torch
from matplotlib.figure import Figure

from scripts import ledger
from scripts.bench.__main__ import run_ours
from scripts.bench.random_model import write_ids, write_model
from scripts.bench.shapes import SHAPES, Shape

_FACTORS = (1, 2, 4)
PLOT = ledger.ROOT / "evals" / "plots" / "growth.svg"


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="small")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--experts", default="grouped", choices=["eager", "grouped"])
    parser.add_argument("--into", type=Path)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    arguments.whole, arguments.no_plan = False, True
    seconds, values = _measured(arguments, SHAPES[arguments.shape])
    _draw(seconds)
    if arguments.record:
        command = shlex.join(["python", "-m", "scripts.bench.growth", *sys.argv[1:]])
        ledger.append("PTQ grows with layers, experts and tokens", command=command, values=values)


def _measured(
    arguments: argparse.Namespace, base: Shape
) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Return the seconds by what grows, and what is to be told."""
    seconds: dict[str, list[float]] = {}
    values: dict[str, object] = {"experts run": arguments.experts}
    if arguments.device.startswith("cuda"):
        _measure(arguments, base, {})  # compiles what is compiled
    first, peak = _measure(arguments, base, {})
    values["the first"] = f"{first:.2f} s; peak {peak}"
    print(f"the first: {values['the first']}", flush=True)
    for what in ("layers", "experts", "tokens"):
        seconds[what] = [first]
        for factor in _FACTORS[1:]:
            found, peak = _measure(arguments, base, {what: factor})
            seconds[what].append(found)
            line = f"{found:.2f} s, {found / first:.2f} of the first; peak {peak}"
            values[f"{what} x {factor}"] = line
            print(f"{what} x {factor}: {line}", flush=True)
    return seconds, values


def _measure(
    arguments: argparse.Namespace, base: Shape, factors: dict[str, int]
) -> tuple[float, str]:
    """Return the seconds from the files to the checkpoint, and the peak memory."""
    experts = int(str(base.text["num_experts"])) * factors.get("experts", 1)
    shape = dataclasses.replace(base, text={**base.text, "num_experts": experts})
    config = shape.config(arguments.layers * factors.get("layers", 1))
    samples = arguments.samples * factors.get("tokens", 1)
    with tempfile.TemporaryDirectory(dir=arguments.into) as folder:
        root = Path(folder)
        write_model(root / "model", config, device=arguments.device)
        vocabulary = config["text_config"]["vocab_size"]
        ids = root / "ids.jsonl"
        write_ids(ids, vocabulary=vocabulary, samples=samples, length=arguments.seq)
        asked = argparse.Namespace(**vars(arguments) | {"samples": samples})
        found = run_ours(asked, root / "model", ids, root / "run")
    return float(found["total"].split()[0]), found["peak memory"]


def _draw(seconds: dict[str, list[float]]) -> None:
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.plot(_FACTORS, _FACTORS, color="0.7", linestyle="--", label="in proportion")
    for what, found in seconds.items():
        axes.plot(_FACTORS, [one / found[0] for one in found], marker="o", label=what)
    axes.set_xlabel("times as many")
    axes.set_ylabel("times as long")
    axes.set_xticks(_FACTORS)
    axes.legend()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
