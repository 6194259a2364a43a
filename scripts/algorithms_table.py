"""How near do algorithms keep quantized models to the unquantized ones? Prints a table of each.

    python -m scripts.algorithms_table MODEL... --out DIR [--formats nvfp4,w4a16_nvfp4]
        [--algorithms max,mse,...] [--seeds 1] [--texts 48] [--tokens 512] [--calib-size 128]
        [--suite FILE] [--device cpu|cuda] [--peers all|NAME,...] [--peer-python PYTHON] [--record]
        [-- OPTIONS OF HARNESS QUANTIZE]

MODEL is a folder, dense or with experts, or `canary`. A row is an algorithm and a format: the mean
over held-out texts of how many nats a token more they cost (NLL), of the Kullback-Leibler
divergence from the unquantized model (KLD), and the share of tokens whose likeliest next one stays
(top-1), as `nearness.py` measures the files. Each seed draws other texts for the calibration;
errors are those of the mean over texts, or the spread over seeds where that is larger. With
`--suite` each task of a suite is scored too, with the files of the first seed.

With `--peers`, nvidia-modelopt (in this environment, on a GPU) and llmcompressor (that of
`--peer-python`) make checkpoints from the same texts where they can, whose files are measured
alike; the tensors of compressed-tensors are put under the names that the reference engine reads.

One checkpoint is made after another. What was made and measured is kept in DIR: a run that was
broken off goes on when it is typed again.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from safetensors.torch import load_file, save_file

from harness import shipped
from scripts import ledger
from scripts.algorithm_peers import names
from scripts.nearness import Score, Source, Texts, texts_of

ALGORITHMS = (
    "max",
    "mse",
    "four_over_six",
    "local_hessian",
    "gptq",
    "four_over_six_gptq",
    "local_hessian_gptq",
    "local_hessian_gptaq",
    "awq",
    "awq_local_hessian",
    "awq_local_hessian_gptq",
    "awq_local_hessian_gptaq",
)
_NAMES = {"weight_packed": "weight", "weight_scale": "weight_scale"}
_DIVISORS = {"weight_global_scale": "weight_scale_2", "input_global_scale": "input_scale"}
_UNQUANTIZED = "unquantized"


class Row(NamedTuple):
    """Of one checkpoint."""

    name: str
    seed: int
    seconds: float
    scores: Sequence[Score]
    tasks: Mapping[str, tuple[float, float]]
    """Accuracy and its standard error, of each task that was scored."""


def main() -> int:
    """Make the checkpoints that are missing, measure them, print the tables."""
    typed = _typed()
    tables = {model: Table(model, typed) for model in typed.models}
    for table in tables.values():
        table.fill()
    for model, table in tables.items():
        print(f"\n{Path(model).name}:\n\n" + "\n".join(table.lines()))
    if typed.record:
        _record(typed, tables)
    return 0


class Table:
    """Of one model; its files lie in a folder of its name."""

    def __init__(self, model: str, typed: argparse.Namespace) -> None:
        """Take a model, and what was typed."""
        self._model, self._typed, self._rows = model, typed, list[Row]()
        self._folder: Path = (typed.out / Path(model).name).resolve()

    def fill(self) -> None:
        """Make, measure and score what is missing."""
        typed, texts = self._typed, texts_of(self._model)
        is_canary = self._model == shipped.CANARY
        model = shipped.canary() / "model" if is_canary else Path(self._model)
        number = {"number": typed.texts, "length": typed.tokens}
        source = Source(model, texts.held_out, **number, device=typed.device)
        self._folder.mkdir(parents=True, exist_ok=True)
        if typed.suite:
            tasks = self._tasks(model, _UNQUANTIZED)
            self._rows.append(Row(_UNQUANTIZED, 0, 0.0, [], tasks))
        for name, seed in _cases(typed):
            checkpoint, seconds = self._made(name, seed, texts)
            if not checkpoint.exists():
                continue
            if name.startswith("llmcompressor"):
                ours, _ = self._made(name.rpartition("-")[2], seed, texts)
                checkpoint = _as_ours(checkpoint, ours)
            scores = self._scores(source, checkpoint, f"{name}-{seed}")
            tasks = self._tasks(checkpoint, f"{name}-{seed}") if typed.suite and not seed else {}
            self._rows.append(Row(name, seed, seconds, scores, tasks))
            print(self._line([self._rows[-1]]), flush=True)

    def lines(self) -> list[str]:
        """Return the table: a line for all seeds of a format."""
        heads = ["format and algorithm", "NLL, nats a token more", "KLD", "top-1"]
        heads += [f"{task}, %" for task in self._asked()] + ["to make, s"]
        lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        made = dict.fromkeys(row.name for row in self._rows)
        same = ([row for row in self._rows if row.name == name] for name in made)
        return lines + [self._line(rows) for rows in same]

    def _asked(self) -> list[str]:
        return list(self._rows[0].tasks) if self._rows else []

    def _line(self, rows: Sequence[Row]) -> str:
        cells = [rows[0].name]
        for field in Score._fields:
            means = [mean(getattr(one, field) for one in row.scores) for row in rows if row.scores]
            values = [getattr(score, field) for score in rows[0].scores]
            if not means:
                cells.append("-")
                continue
            spread = stdev(means) if len(means) > 1 else 0.0
            error = max(spread, stdev(values) / len(values) ** 0.5)
            cells.append(f"{mean(means):.4f} ± {error:.4f}")
        for task in self._asked():
            scored = rows[0].tasks.get(task)
            cells.append(
                "-" if scored is None else f"{100 * scored[0]:.1f} ± {100 * scored[1]:.1f}"
            )
        return f"| {' | '.join(cells)} | {mean(row.seconds for row in rows):.0f} |"

    def _made(self, name: str, seed: int, texts: Texts) -> tuple[Path, float]:
        """Return the checkpoint of a format, made if it is not there, and the seconds it took."""
        typed, folder = self._typed, self._folder / f"{name}-{seed}"
        took, is_peer = folder.with_suffix(".seconds"), "-" in name
        if not took.exists():
            drawn, size = str(_drawn(self._folder, texts, seed)), str(typed.calib_size)
            if is_peer:
                python = sys.executable if name.startswith("modelopt") else typed.peer_python
                command = [python, "-m", "scripts.algorithm_peers", name, self._model, drawn]
                command += [str(folder), "--size", size, "--seq", "512", "--device", typed.device]
            else:
                command = [sys.executable, "-m", "harness", "quantize", "--model", self._model]
                command += ["--qformat", name, "--out", str(folder), "--calib-size", size]
                command += ["--calib-data", drawn, "--device", typed.device, *typed.options]
            started = time.monotonic()
            done = subprocess.run(command, check=False)
            seconds = time.monotonic() - started
            took.write_text(f"{seconds:.1f} {done.returncode}", encoding="utf-8")
        said, code = took.read_text(encoding="utf-8").split()
        if code != "0":
            print(f"{name}, seed {seed}: making it ended with {code}", file=sys.stderr)
        return folder if is_peer else folder / "checkpoint", float(said)

    def _scores(self, source: Source, checkpoint: Path, name: str) -> list[Score]:
        path = self._folder / f"{name}.{self._typed.texts}x{self._typed.tokens}.json"
        if not path.exists():
            path.write_text(json.dumps(list(source.compared(checkpoint))), encoding="utf-8")
        return [Score(*one) for one in json.loads(path.read_text(encoding="utf-8"))]

    def _tasks(self, checkpoint: Path, name: str) -> Mapping[str, tuple[float, float]]:
        """Return each task's accuracy and its error, scored if they are not there."""
        suite = self._typed.suite
        out = self._folder / f"{name}.{Path(suite).stem}"
        card = out / "scorecard.json"
        if not card.exists():
            command = [sys.executable, "-m", "harness", "score", str(checkpoint), "--suite", suite]
            where = ["--engine", "reference", "--device", self._typed.device, "--out", str(out)]
            subprocess.run([*command, *where], check=True, stdout=sys.stderr)
        tasks: list[dict[str, Any]] = json.loads(card.read_bytes())["tasks"]
        return {one["task"]: (one["value"], one["stderr"]) for one in tasks}


def _cases(typed: argparse.Namespace) -> Iterator[tuple[str, int]]:
    for number_format in typed.formats.split(","):
        for algorithm in filter(None, typed.algorithms.split(",")):
            ending = "" if algorithm == "max" else f"_{algorithm}"
            for seed in range(typed.seeds):
                yield f"{number_format}{ending}", seed
        for peer in names(number_format):
            if typed.peers != "all" and peer.rpartition("-")[0] not in typed.peers.split(","):
                continue
            for seed in range(typed.seeds):
                yield peer, seed


def _as_ours(checkpoint: Path, like: Path) -> Path:
    """Return a checkpoint of compressed-tensors in the files of one of ours, value for value."""
    folder = checkpoint.with_name(f"{checkpoint.name}-renamed")
    shutil.copytree(like, folder, dirs_exist_ok=True)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        module, _, leaf = name.rpartition(".")
        if leaf in _NAMES:
            tensors[f"{module}.{_NAMES[leaf]}"] = tensor
        elif leaf in _DIVISORS:
            tensors[f"{module}.{_DIVISORS[leaf]}"] = tensor.float().reciprocal().reshape(())
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _drawn(folder: Path, texts: Texts, seed: int) -> Path:
    """Return the calibration's texts in another order, of which the first are taken."""
    path, drawn = folder / f"calibration-{seed}.jsonl", list(texts.calibrating)
    random.Random(seed).shuffle(drawn)  # noqa: S311 -- no secret
    lines = "".join(json.dumps({"text": text}) + "\n" for text in drawn)
    path.write_text(lines, encoding="utf-8")
    return path


def _record(typed: argparse.Namespace, tables: Mapping[str, Table]) -> None:
    words = " ".join(Path(word).name for word in sys.argv[1:])
    for model, table in tables.items():
        ledger.append(
            f"Algorithms for NVFP4 on {Path(model).name}: distance from it, and its tasks",
            command=f"python -m scripts.algorithms_table {words}",
            values={
                "device": typed.device,
                "calibration_samples": typed.calib_size,
                "seeds": typed.seeds,
                "texts": typed.texts,
                "tokens": typed.tokens,
                "rows": table.lines(),
            },
        )


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--formats", default="nvfp4,w4a16_nvfp4")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--calib-size", type=int, default=128)
    parser.add_argument("--suite", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", default="")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--record", action="store_true")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    typed = parser.parse_args(sys.argv[1:end])
    typed.options = sys.argv[end + 1 :]
    return typed


if __name__ == "__main__":
    sys.exit(main())
