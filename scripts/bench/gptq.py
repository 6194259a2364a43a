"""GPTQ on NVFP4: harness beside nvidia-modelopt and llmcompressor, on one model, in turns.

    python -m scripts.bench.gptq --model DIR --texts FILE --device cuda --peers modelopt
    python -m scripts.bench.gptq --shape qwen3-1.7b --layers 8 --device cuda --into /dev/shm
        --peers modelopt,llmcompressor --peer-python PYTHON --rounds 2 --record

A random model of a shape (`shapes.py`) is written, or MODEL is taken, with texts or token ids, one
in a JSON line. Each round quantizes with harness, then with each peer in a process of its own; the
least of the rounds counts. Theirs is from the loaded model to the written files, ours from the
files to the written files. PYTHON is that of llmcompressor's environment; modelopt is in this one.
modelopt leaves experts that share a parameter as their nearest codes, so it has less to do there. A
peer that fails is left out: on a CPU modelopt does.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts import ledger
from scripts.bench.random_model import write_ids, write_model
from scripts.bench.shapes import DENSE, SHAPES, Dense, Shape

_FORMAT = "nvfp4_gptq"
_OURS = "harness"


def main() -> None:
    """Take turns, print the times and their ratios."""
    typed = _typed()
    with tempfile.TemporaryDirectory(dir=typed.into) as folder:
        root = Path(folder)
        if typed.shape:
            typed.model, typed.texts = _random(typed, root)
        least = _least(typed, root)
    peers = [name for name in least if name != _OURS]
    found = {f"{name}, s": f"{seconds:.2f}" for name, seconds in least.items()}
    for name in peers:
        found[f"{name}'s time over harness's"] = f"{least[name] / least[_OURS]:.1f}"
    for name, value in found.items():
        print(f"{name}: {value}", flush=True)
    if typed.record:
        what = typed.model.name if not typed.shape else f"shape {typed.shape}"
        layers = f", {typed.layers} layers" if typed.layers else ""
        calibration = f"{typed.samples} samples of {typed.seq} tokens"
        ledger.append(
            f"GPTQ on NVFP4, {what}{layers}, beside {' and '.join(peers)}",
            command=shlex.join(["python", "-m", "scripts.bench.gptq", *sys.argv[1:]]),
            values={"calibration": calibration, "rounds": typed.rounds, **found},
        )


def _least(typed: argparse.Namespace, root: Path) -> dict[str, float]:
    """Return the least time of each tool that did not fail."""
    least: dict[str, float] = {}
    names = [_OURS, *filter(None, typed.peers.split(","))]
    for name in names * typed.rounds:
        try:
            seconds = _seconds(name, typed, root)
        except subprocess.CalledProcessError:
            if name == _OURS:
                raise
            continue  # it has said why
        least[name] = min(seconds, least.get(name, seconds))
    return least


def _random(typed: argparse.Namespace, root: Path) -> tuple[Path, Path]:
    shapes: Mapping[str, Shape | Dense] = {**SHAPES, **DENSE}
    config = shapes[typed.shape].config(typed.layers)
    write_model(root / "model", config, device=typed.device)
    vocabulary = config.get("text_config", config)["vocab_size"]
    write_ids(root / "ids.jsonl", vocabulary=vocabulary, samples=typed.samples, length=typed.seq)
    return root / "model", root / "ids.jsonl"


def _seconds(name: str, typed: argparse.Namespace, root: Path) -> float:
    """Quantize once; return what it took, without verifying and without imports."""
    out, size, seq = root / "out", str(typed.samples), str(typed.seq)
    shutil.rmtree(out, ignore_errors=True)
    if name == _OURS:
        words = ["-m", "harness", "quantize", "--model", str(typed.model), "--qformat", _FORMAT]
        words += ["--calib-data", str(typed.texts), "--calib-size", size, "--calib-seq", seq]
        _run([sys.executable, *words, "--device", typed.device, "--out", str(out)])
        stages: dict[str, float] = json.loads((out / "stage_seconds.json").read_bytes())
        return sum(seconds for stage, seconds in stages.items() if stage != "verify")
    python = typed.peer_python if name == "llmcompressor" else sys.executable
    words = ["-m", "scripts.algorithm_peers", f"{name}-gptq-nvfp4", str(typed.model)]
    words += [str(typed.texts), str(out), "--size", size, "--seq", seq, "--device", typed.device]
    told = _run([python, *words])
    return float(json.loads(told.splitlines()[-1])["seconds"])


def _run(command: list[str]) -> str:
    """Return what a command writes; its errors are shown as they come."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model", type=Path)
    what.add_argument("--shape", choices=sorted({*SHAPES, *DENSE}))
    parser.add_argument("--texts", type=Path, help="JSON lines, for --model.")
    parser.add_argument("--layers", type=int, help="Decoder layers of --shape.")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--into", type=Path, help="Where to write; default: /tmp.")
    parser.add_argument("--peers", default="", help="modelopt, llmcompressor")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    typed = parser.parse_args()
    if typed.model and not typed.texts:
        parser.error("--model needs --texts")
    return typed


if __name__ == "__main__":
    main()
