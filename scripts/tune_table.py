"""Does a tuned recipe beat uniform ones of no fewer bits, and AutoQuantize? Prints a table.

    python -m scripts.tune_table MODEL --out DIR --bits 4.8,5.5,6.5 [--formats nvfp4,fp8,none]
        [--algorithm local_hessian] [--uniform nvfp4,nvfp4_mlp_only,fp8] [--tune-tokens 8192]
        [--texts 48] [--tokens 512] [--calib-size 128] [--suite smoke] [--device cpu] [--record]

A row is a checkpoint: its stored bits a weight over all weights that tuning may quantize, and on
held-out texts the nats a token more that it costs (NLL), the Kullback-Leibler divergence from the
unquantized model (KLD), and the share of tokens whose likeliest next one stays (top-1), with
errors over texts. What is measured are the files, on the reference engine (`scripts.nearness`).

Recipes are tuned as `harness tune --bits` does it, without the gate: sensitivities in one pass, the
exact choice, whole recipes on other texts. nvidia-modelopt's AutoQuantize chooses for the same
bits.
"""

import argparse
import json
import logging
import math
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from harness.artifacts import TensorHeader, digest_of
from harness.models import open_source
from harness.request import Request
from harness.tuning import Goal, wanted
from harness.tuning.measuring import FRONTIER_FILE, frontier_of_recipes, sensitivities_of
from harness.tuning.rules import recipe_for
from harness.tuning.work import Work, prepared
from harness.tuning.writing import write_recipe
from scripts import ledger
from scripts.nearness import Score, Source, texts_of

_HEAD = (
    "| recipe | bits | NLL, nats a token more | KLD | top-1 | to choose, s |\n"
    "|---|---|---|---|---|---|"
)


class Row(NamedTuple):
    """Of one checkpoint."""

    name: str
    bits: float
    scores: Sequence[Score]
    seconds: float
    """In which its formats were chosen; what an earlier row or run has measured is not counted."""


def main() -> int:
    """Make the checkpoints that are missing, measure them, print the table."""
    typed = _typed()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("harness").setLevel(logging.INFO)
    typed.out.mkdir(parents=True, exist_ok=True)
    texts = texts_of(str(typed.model))
    calibrating = _written(typed.out / "calibration-0.jsonl", texts.calibrating)
    number = {"number": typed.texts, "length": typed.tokens}
    source = Source(typed.model, texts.held_out, **number, device=typed.device)
    rows: list[Row] = []
    work: Work | None = None
    for bits in map(float, typed.bits.split(",")):
        work = _prepared(typed, calibrating, bits)
        recipe, seconds = _tuned(work)
        kind = digest_of(recipe.read_text(encoding="utf-8"))[:8]
        folder = _made(typed, f"tuned-{bits:g}-{kind}", calibrating, "--recipe", str(recipe))
        rows.append(_row(source, work, f"tuned to {bits:g}", folder, seconds))
        print(_line(rows[-1]), flush=True)
        rows += _auto(typed, source, work, calibrating, bits)
    for name in filter(None, typed.uniform.split(",")):
        try:
            folder = _made(typed, name, calibrating, "--qformat", name)
        except subprocess.CalledProcessError:
            print(f"{name} is no format of this model: left out", file=sys.stderr)
            continue
        if work is not None:
            rows.append(_row(source, work, name, folder, 0.0))
            print(_line(rows[-1]), flush=True)
    table = "\n".join([_HEAD, *map(_line, sorted(rows, key=lambda row: row.bits))])
    print(table)
    if typed.record:
        _record(typed, table)
    return 0


def _written(path: Path, texts: Sequence[str]) -> Path:
    """Write the texts that calibrate, in an order of their own."""
    order = list(texts)
    random.Random(0).shuffle(order)  # noqa: S311 -- no secret
    lines = "".join(json.dumps({"text": text}) + "\n" for text in order)
    path.write_text(lines, encoding="utf-8")
    return path


def _prepared(typed: argparse.Namespace, texts: Path, bits: float) -> Work:
    request = Request(
        model=str(typed.model),
        calib_data=str(texts),
        calib_size=typed.calib_size,
        suite=typed.suite,
        engine="reference",
        device=typed.device,
    )
    goal = Goal(bits, None)
    asked = wanted(request, goal, typed.formats, typed.algorithm, typed.tune_tokens)
    return prepared(asked, typed.out / "tuning")


def _tuned(work: Work) -> tuple[Path, float]:
    """Return the recipe's file, and in how many seconds it was chosen."""
    work.folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    found = sensitivities_of(work)
    frontier = frontier_of_recipes(work, found)
    capacity = work.typed.goal.capacity(found.num_weights)
    point = [one for one in frontier.made() if one.num_bits <= capacity][-1]
    seconds = time.monotonic() - started
    path = work.folder / f"{point.bits:.2f}.yaml"
    write_recipe(recipe_for(work.space, point.choice, work.job.inventory), point, path)
    bits = work.typed.goal.bits
    shutil.copy(work.folder / FRONTIER_FILE, work.folder / f"frontier-{bits:g}.json")
    return path, seconds


def _made(typed: argparse.Namespace, name: str, texts: Path, *recipe: str) -> Path:
    """Return a checkpoint, made if this one is not there yet.

    Raises:
        subprocess.CalledProcessError: it cannot be made.
    """
    folder: Path = typed.out / f"{name}-{typed.calib_size}"
    if not (folder / "checkpoint").exists():
        command = [
            sys.executable,
            "-m",
            "harness",
            "quantize",
            "--model",
            str(typed.model),
            *recipe,
        ]
        command += ["--out", str(folder), "--calib-size", str(typed.calib_size)]
        command += ["--calib-data", str(texts), "--device", typed.device]
        subprocess.run(command, check=True)
    return folder / "checkpoint"


def _auto(
    typed: argparse.Namespace, source: Source, work: Work, texts: Path, bits: float
) -> Iterator[Row]:
    """Yield the row of AutoQuantize, unless it fails, which it says."""
    folder, started = typed.out / f"autoquantize-{bits:g}-{typed.calib_size}", time.monotonic()
    if not folder.exists():
        command = [sys.executable, "-m", "scripts.auto_quantize", str(typed.model), str(texts)]
        command += [str(folder), "--bits", str(bits), "--size", str(typed.calib_size)]
        command += ["--seq", str(typed.tokens), "--device", typed.device]
        if subprocess.run(command, check=False).returncode:
            shutil.rmtree(folder, ignore_errors=True)
            return
    seconds = time.monotonic() - started
    row = _row(source, work, f"AutoQuantize at {bits:g}", folder, seconds)
    print(_line(row), flush=True)
    yield row


def _row(source: Source, work: Work, name: str, folder: Path, seconds: float) -> Row:
    return Row(name, _stored_bits(work, folder), list(source.compared(folder)), seconds)


def _stored_bits(work: Work, folder: Path) -> float:
    """Return the bits a weight that a checkpoint's files take for the units, whoever made it."""
    names = {linear.name for unit in work.space.units for linear in unit.linears}
    stored = sum(
        8 * header.num_bytes
        for tensor, header in open_source(str(folder)).tensors.items()
        if tensor.rpartition(".")[0] in names or _is_stack(work, tensor, header)
    )
    return stored / sum(unit.num_weights for unit in work.space.units)


def _is_stack(work: Work, tensor: str, header: TensorHeader) -> bool:
    """Tell whether a tensor holds all experts of a unit that is left as it is."""
    sources = {
        linear.source.tensor: math.prod(work.job.source.tensors[linear.source.tensor].shape)
        for unit in work.space.units
        for linear in unit.linears
        if linear.source.expert is not None
    }
    return sources.get(tensor) == math.prod(header.shape)


def _line(row: Row) -> str:
    cells = [row.name, f"{row.bits:.2f}"]
    for field in Score._fields:
        values = [getattr(score, field) for score in row.scores]
        cells.append(f"{mean(values):.4f} ± {stdev(values) / len(values) ** 0.5:.4f}")
    return f"| {' | '.join(cells)} | {row.seconds:.0f} |"


def _record(typed: argparse.Namespace, table: str) -> None:
    words = " ".join(Path(word).name for word in sys.argv[1:])
    ledger.append(
        f"tuned recipes, {typed.model.name}",
        command=f"python -m scripts.tune_table {words}",
        values={
            "device": typed.device,
            "calibration_samples": typed.calib_size,
            "tokens of each pass": typed.tune_tokens,
            "texts": typed.texts,
            "tokens": typed.tokens,
            "rows": table.splitlines()[2:],
        },
    )


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", required=True)
    parser.add_argument("--formats", default="nvfp4,fp8,none")
    parser.add_argument("--algorithm", default="")
    parser.add_argument("--uniform", default="nvfp4,nvfp4_mlp_only,fp8")
    parser.add_argument("--suite", default="smoke")
    parser.add_argument("--tune-tokens", type=int, default=8192)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--calib-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
