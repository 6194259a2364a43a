"""How near do algorithms keep a quantized model to the unquantized one? Prints a table.

    python -m scripts.algorithms_table MODEL --out DIR [--formats nvfp4,w4a16_nvfp4]
        [--algorithms max,mse,...] [--seeds 1] [--texts 48] [--tokens 512] [--calib-size 128]
        [--device cpu|cuda] [--peers all|NAME,...] [--peer-python PYTHON] [--record]
        [-- OPTIONS OF HARNESS QUANTIZE]

A row is an algorithm and a format: the mean over held-out texts of how many nats a token more they
cost (NLL), of the Kullback-Leibler divergence from the unquantized model (KLD), and the share of
tokens whose likeliest next one stays (top-1). What is measured are the checkpoint's files on the
reference engine, which rounds weights and inputs as vLLM's emulation does; the unquantized model
runs in the same arithmetic. Each seed draws other texts for the calibration; errors are those of
the mean over texts, and over seeds where there are several.

With `--peers`, nvidia-modelopt (in this environment, on a GPU) and llmcompressor (that of
`--peer-python`) make checkpoints of a dense model from the same texts, whose files are measured
alike; the tensors of compressed-tensors are put under the names that the reference engine reads.

The texts are those of evals/calibration/default.jsonl: a part is held out, the rest calibrates.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import shipped
from harness.artifacts import EngineSpec
from harness.serve.reference import serve_reference
from scripts import ledger
from scripts.algorithm_peers import names

ALGORITHMS = (
    "max",
    "mse",
    "four_over_six",
    "local_hessian",
    "gptq",
    "four_over_six_gptq",
    "local_hessian_gptq",
)
_BATCH = 4
_NAMES = {"weight_packed": "weight", "weight_scale": "weight_scale"}
_DIVISORS = {"weight_global_scale": "weight_scale_2", "input_global_scale": "input_scale"}


class Score(NamedTuple):
    """Of one text, in the mean over its tokens."""

    nll: float
    kld: float
    top_1: float


class Row(NamedTuple):
    """Of one checkpoint."""

    name: str
    seed: int
    seconds: float
    scores: Sequence[Score]


def main() -> int:
    """Make the checkpoints that are missing, measure them, print the table."""
    typed = _typed()
    out: Path = typed.out
    out.mkdir(parents=True, exist_ok=True)
    held_out = _split(out)
    rows: list[Row] = []
    with _Source(typed, held_out) as source:
        for name, seed in _cases(typed):
            checkpoint, seconds = _made(typed, name, seed)
            if not checkpoint.exists():
                continue
            if name.startswith("llmcompressor"):
                ours, _ = _made(typed, name.rpartition("-")[2], seed)
                checkpoint = _as_ours(checkpoint, ours)
            rows.append(Row(name, seed, seconds, list(source.compared(checkpoint))))
            print(_line([rows[-1]]), flush=True)
    made = dict.fromkeys(row.name for row in rows)
    lines = [_line([row for row in rows if row.name == name]) for name in made]
    table = "\n".join([_HEAD, *lines])
    print(table)
    if typed.record:
        _record(typed, rows, table)
    return 0


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


def _split(out: Path) -> list[str]:
    """Write the texts that calibrate, and return those that are held out."""
    lines = (shipped.calibration() / "default.jsonl").read_text(encoding="utf-8")
    texts = [json.loads(line)["text"] for line in lines.splitlines()]
    random.Random(0).shuffle(texts)  # noqa: S311 -- no secret
    third = len(texts) // 3
    calibrating = "".join(json.dumps({"text": text}) + "\n" for text in texts[third:])
    (out / "calibration.jsonl").write_text(calibrating, encoding="utf-8")
    return texts[:third]


def _made(typed: argparse.Namespace, name: str, seed: int) -> tuple[Path, float]:
    """Return the checkpoint of a format, made if it is not there, and the seconds that took."""
    folder = typed.out / f"{name}-{seed}"
    took, is_peer = folder.with_suffix(".seconds"), "-" in name
    if not took.exists():
        texts, size = str(_drawn(typed.out, seed)), str(typed.calib_size)
        if is_peer:
            python = sys.executable if name.startswith("modelopt") else typed.peer_python
            command = [python, "-m", "scripts.algorithm_peers", name, str(typed.model), texts]
            command += [str(folder), "--size", size, "--seq", "512", "--device", typed.device]
        else:
            command = [sys.executable, "-m", "harness", "quantize", "--model", str(typed.model)]
            command += ["--qformat", name, "--out", str(folder), "--calib-size", size]
            command += ["--calib-data", texts, "--device", typed.device, *typed.options]
        started = time.monotonic()
        done = subprocess.run(command, check=False)
        took.write_text(f"{time.monotonic() - started:.1f} {done.returncode}", encoding="utf-8")
    seconds, code = took.read_text(encoding="utf-8").split()
    if code != "0":
        print(f"{name}, seed {seed}: making it ended with {code}", file=sys.stderr)
    return folder if is_peer else folder / "checkpoint", float(seconds)


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


def _drawn(out: Path, seed: int) -> Path:
    """Return the calibration's texts in another order, of which the first are taken."""
    path = out / f"calibration-{seed}.jsonl"
    lines = (out / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
    random.Random(seed).shuffle(lines)  # noqa: S311 -- no secret
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


class _Source:
    """The unquantized model, with its answers to the held-out texts."""

    def __init__(self, typed: argparse.Namespace, texts: list[str]) -> None:
        self._engine = EngineSpec(
            name="reference", numerics="declared", device=typed.device, dtype="float32"
        )
        self._model, self._texts, self._typed = typed.model, texts, typed
        self._batches: list[Tensor] = []
        self._expected: list[Tensor] = []

    def __enter__(self) -> Self:
        with serve_reference(self._engine, self._model) as served, torch.inference_mode():
            length = self._typed.tokens
            ids = (served.tokenizer(text)["input_ids"][:length] for text in self._texts)
            whole = [torch.tensor(one) for one in ids if len(one) == length][: self._typed.texts]
            if len(whole) < 2:  # noqa: PLR2004  # an error bar needs two
                message = f"{len(whole)} held-out texts have {length} tokens: fewer --tokens"
                raise SystemExit(message)
            self._batches = list(torch.split(torch.stack(whole).to(self._typed.device), _BATCH))
            self._expected = [_log_probabilities(served.model, x).cpu() for x in self._batches]
        return self

    def __exit__(self, *_: object) -> None:
        self._expected.clear()

    def compared(self, checkpoint: Path) -> Iterator[Score]:
        """Yield each text's score of a checkpoint."""
        with serve_reference(self._engine, checkpoint) as served, torch.inference_mode():
            for ids_BT, expected in zip(self._batches, self._expected, strict=True):
                found = _log_probabilities(served.model, ids_BT)
                wanted = expected.to(found.device)
                kld_BT = (wanted.exp() * (wanted - found)).sum(-1)
                same_BT = (wanted.argmax(-1) == found.argmax(-1)).float()
                nll_BT = (wanted - found).gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
                for nll, kld, same in zip(nll_BT, kld_BT, same_BT, strict=True):
                    yield Score(float(nll.mean()), float(kld.mean()), float(same.mean()))


def _log_probabilities(model: Any, ids_BT: Tensor) -> Tensor:  # noqa: ANN401  # transformers
    logits: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits[:, :-1].float().log_softmax(-1)


_HEAD = (
    "| format and algorithm | NLL, nats a token more | KLD | top-1 | to make, s |\n"
    "|---|---|---|---|---|"
)


def _line(rows: Sequence[Row]) -> str:
    """Return a line of the table: of all seeds of one format."""
    cells = []
    for field in Score._fields:
        means = [mean(getattr(score, field) for score in row.scores) for row in rows]
        values = [getattr(score, field) for score in rows[0].scores]
        error = stdev(means) if len(rows) > 1 else stdev(values) / len(values) ** 0.5
        cells.append(f"{mean(means):.4f} ± {error:.4f}")
    seconds = mean(row.seconds for row in rows)
    return f"| {rows[0].name} | {' | '.join(cells)} | {seconds:.0f} |"


def _record(typed: argparse.Namespace, rows: Sequence[Row], table: str) -> None:
    ledger.append(
        "algorithms",
        command=f"python -m scripts.algorithms_table {' '.join(sys.argv[1:])}",
        values={
            "model": typed.model.name,
            "device": typed.device,
            "calibration_samples": typed.calib_size,
            "seeds": typed.seeds,
            "texts": len(rows[0].scores),
            "tokens": typed.tokens,
            "rows": table.splitlines()[2:],
        },
    )


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--formats", default="nvfp4,w4a16_nvfp4")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--calib-size", type=int, default=128)
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
