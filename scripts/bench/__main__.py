"""PTQ of a random model of a real shape: harness beside nvidia-modelopt, in one run.

    python -m scripts.bench --shape qwen3.6-35b-a3b --layers 8 --device cuda --into /dev/shm --peer
    python -m scripts.bench --shape 3b --samples 64 --seq 128 --peer --record
    python -m scripts.bench --shape qwen3.6-35b-a3b --also "--gpu-memory 24GiB" --also "--ranks 2"
    python -m scripts.bench --shape qwen3.6-35b-a3b --before TREE --gate PYTHON

Writes the model and its token ids, runs both from these files to a checkpoint, and prints ratios:
the peer's time counts from its loaded model, ours from the files. Both see the same batches.
The floors are one read, one forward, one write, as `floors.py` finds them on this machine. A model
on a disk is read from there, and not from what the system remembers of it.
`--also` runs harness once more with further options. `--before` runs that of another checkout, too;
`--gate` takes the experts' input scales away and times `harness gate` with the vLLM of that Python
(or `reference`) until it says NO-GO, in both trees. On a GPU `--plan` compiles beforehand what is
compiled, which is not what is timed.
Needs the size of the model twice in `--into`, and for `--peer` the `parity` extra and the model in
memory; the tensors of both checkpoints are compared. What `--keep` left can be served:
`python -m scripts.bench.serve DIR/run/checkpoint`.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import torch

from harness.models import open_source
from scripts import ledger
from scripts.bench.floors import floors, weight_bytes
from scripts.bench.random_model import write_ids, write_model
from scripts.bench.salad import take_scales_away
from scripts.bench.shapes import SHAPES
from scripts.bench.tensors import agreement
from scripts.bench.watch import Watched, is_in_memory, put_out_of_memory, run_watched

_PARTS = {
    "parts of calibrate": re.compile(r"calibrate: (prepared .*)"),
    "reading, meanwhile": re.compile(r"calibrate: read (.*)"),
    "memory of calibrate": re.compile(r"calibrate: took (.*)"),
}
"""What harness says of itself."""
_NO_GO, _TURNS = 4, 2
_PART = re.compile(r"([a-z][a-z ]*) ([0-9.]+) s")


def main() -> None:
    """Make the model, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--layers", type=int, help="Decoder layers; default: the shape's.")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64, help="Samples of a batch.")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--experts", default="grouped", choices=["eager", "grouped"])
    parser.add_argument("--whole", action="store_true", help="All layers in memory at once.")
    parser.add_argument("--into", type=Path, help="Where to write; default: /tmp.")
    parser.add_argument("--keep", type=Path, help="A new folder that model and run are left in.")
    parser.add_argument("--also", action="append", default=[], help="Options of one more run.")
    parser.add_argument("--no-plan", action="store_true", help="Do not ask --plan beforehand.")
    parser.add_argument("--peer", action="store_true", help="Run nvidia-modelopt too.")
    parser.add_argument("--before", type=Path, help="Another checkout, to be run in turn.")
    parser.add_argument("--gate", metavar="PYTHON", help="Time the NO-GO of a damaged checkpoint.")
    parser.add_argument("--record", action="store_true", help="Add a row to the ledger.")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        root = arguments.keep
        if root is None:
            folder = tempfile.TemporaryDirectory(dir=arguments.into)
            root = Path(stack.enter_context(folder))
        claim = _claim(arguments, root)
        values = measure(arguments, root)
    if arguments.record:
        ledger.append(
            claim,
            command=shlex.join(["python", "-m", "scripts.bench", *sys.argv[1:]]),
            values=values,
        )


def _claim(arguments: argparse.Namespace, root: Path) -> str:
    layers = f", {arguments.layers} layers" if arguments.layers else ""
    where = "" if is_in_memory(root) else ", from and to a disk"
    beside = ", beside nvidia-modelopt" if arguments.peer else ""
    return f"NVFP4 PTQ of a random model, shape {arguments.shape}{layers}{where}{beside}"


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, object]:
    """Run all parts; return what was found."""
    model, ids = root / "model", root / "ids.jsonl"
    values: dict[str, object] = {**make(arguments, model, ids)}
    _say(values)
    ours = run_ours(arguments, model, ids, root / "run")
    found = {f"harness: {name}": value for name, value in ours.items()}
    if not arguments.whole:  # which says nothing of its parts
        found |= _distances(ours, _floors(arguments, model, root / "run" / "checkpoint"), model)
    _say(found)
    values |= found
    for options in arguments.also:
        other = run_ours(arguments, model, ids, root / "also", *shlex.split(options))
        shutil.rmtree(root / "also")
        found = {f"harness {options}: {name}": value for name, value in other.items()}
        times = _seconds(other["total"]) / _seconds(ours["total"])
        found[f"time with {options} over without"] = f"{times:.2f}"
        _say(found)
        values |= found
    if arguments.peer:
        theirs = run_peer(arguments, model, ids, root / "peer")
        _say(found := {f"modelopt: {name}": value for name, value in theirs.items()})
        values |= found
        times = _seconds(theirs["total"]) / _seconds(ours["total"])
        found = {"modelopt's time over harness's": f"{times:.1f}"}
        agreed = agreement(root / "run" / "checkpoint", root / "peer")
        _say(found := found | {f"beside modelopt's: {name}": n for name, n in agreed.items()})
        values |= found
    for measured in (
        compare_trees(arguments, model, ids, root, ours) if arguments.before else {},
        time_no_go(arguments, model, root) if arguments.gate else {},
    ):
        _say(measured)
        values |= measured
    return values


def make(arguments: argparse.Namespace, model: Path, ids: Path) -> dict[str, str]:
    """Write the model and its token ids; return what they are."""
    config = SHAPES[arguments.shape].config(arguments.layers)
    num_parameters = write_model(model, config, device=arguments.device)
    vocabulary = config["text_config"]["vocab_size"]
    write_ids(ids, vocabulary=vocabulary, samples=arguments.samples, length=arguments.seq)
    open_source(str(model))  # its digest is remembered: no run has to read all of it for that
    return {
        "model": f"{num_parameters / 1e9:.2f} B parameters",
        "calibration": f"{arguments.samples} x {arguments.seq} tokens, {arguments.batch} a batch",
    }


def recipe_of(arguments: argparse.Namespace, path: Path) -> Path:
    """Write nvfp4's recipe with batches of the asked size."""
    shipped = Path(__file__).resolve().parents[2] / "recipes" / "nvfp4.yaml"
    tokens = arguments.batch * arguments.seq
    text = shipped.read_text(encoding="utf-8")
    path.write_text(text.replace("batch_tokens: 8192", f"batch_tokens: {tokens}"), encoding="utf-8")
    return path


def run_ours(
    arguments: argparse.Namespace,
    model: Path,
    ids: Path,
    out: Path,
    *more: str,
    tree: Path | None = None,
) -> dict[str, str]:
    """Quantize with harness; return seconds by stage, the parts of calibration, peak memory."""
    recipe = recipe_of(arguments, out.with_suffix(".yaml"))
    options = {
        "--model": model,
        "--recipe": recipe,
        "--calib-data": ids,
        "--calib-size": arguments.samples,
        "--calib-seq": arguments.seq,
        "--experts": arguments.experts,
        "--device": arguments.device,
        "--out": out,
    }
    words = [str(word) for pair in options.items() for word in pair]
    words += ["--whole" if arguments.whole else "--layerwise", *more]
    put_out_of_memory(model)
    planned = None if arguments.no_plan or tree else _planned_seconds(words)
    put_out_of_memory(model)
    done = _watched("harness", "quantize", *words, tree=tree)
    seconds = json.loads((out / "stage_seconds.json").read_text(encoding="utf-8"))
    parts = {stage: f"{value:.2f} s" for stage, value in seconds.items()}
    total = sum(value for stage, value in seconds.items() if stage != "verify")
    told = {name: line.search(done.output) for name, line in _PARTS.items()}
    parts |= {name: found[1] for name, found in told.items() if found}
    parts["total"] = f"{total:.2f} s"
    if planned is not None:
        foretold = f"{planned:.2f} s, {planned / total:.2f} of what it took"
        parts["total that --plan foretold"] = foretold
    parts["from start to end, verify included"] = f"{done.seconds:.2f} s"
    return parts | {"peak memory": f"{done.peak_host_gib:.2f} GiB"}


def compare_trees(
    arguments: argparse.Namespace, model: Path, ids: Path, root: Path, ours: dict[str, str]
) -> dict[str, str]:
    """Quantize with the harness of another checkout; return what this one takes of its time."""
    theirs = run_ours(arguments, model, ids, root / "before", tree=arguments.before)
    shutil.rmtree(root / "before")
    whole, verify = "from start to end, verify included", "verify"
    found = {f"before: {name}": theirs[name] for name in (whole, verify, "total")}
    for name in (whole, verify, "total"):
        found[f"{name}, of the time before"] = (
            f"{_seconds(ours[name]) / _seconds(theirs[name]):.2f}"
        )
    return found


def time_no_go(arguments: argparse.Namespace, model: Path, root: Path) -> dict[str, str]:
    """Return how long it takes to refuse a checkpoint without its experts' input scales.

    After a first time that is not counted: it reads vLLM's files from the disk, which took half a
    minute longer on a fresh machine. Two trees take turns.
    """
    salad = root / "run" / "checkpoint"
    take_scales_away(salad)
    options = ["--baseline", str(model), "--suite", "canary", "--device", arguments.device]
    engine = ["--engine", "reference"]
    if arguments.gate != "reference":
        engine = ["--engine", "vllm", "--vllm", arguments.gate]
    trees = {"": None} | ({"before: ": arguments.before} if arguments.before else {})
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for name, tree in [("", None), *list(trees.items()) * _TURNS]:
        words = ["gate", str(salad), *options, *engine, "--run-dir", str(root / "gate"), "--fresh"]
        done = _watched("harness", *words, tree=tree, code=_NO_GO)
        if "expert-input-scales-complete" not in done.output:
            sys.exit(f"it was refused for another reason:\n{done.output[-2000:]}")
        seconds[name].append(done.seconds)
    counted = {name: took[-_TURNS:] for name, took in seconds.items()}
    return {f"{name}from command to NO-GO": f"{min(took):.2f} s" for name, took in counted.items()}


def _planned_seconds(words: list[str]) -> float:
    """Return the seconds of calibrate and export together that `--plan` foretells."""
    out = _watched("harness", "quantize", *words, "--plan", "--json").output
    seconds = json.loads(out[out.index("{") :])["stage_seconds"]
    return float(seconds["calibrate"] + seconds["export"])


def run_peer(arguments: argparse.Namespace, model: Path, ids: Path, out: Path) -> dict[str, str]:
    """Quantize with nvidia-modelopt; return the same."""
    options = ("--device", arguments.device, "--batch", str(arguments.batch))
    done = _watched("scripts.bench.peer", str(model), str(ids), str(out), *options)
    seconds = json.loads(done.output.splitlines()[-1])
    parts = {part: f"{value:.2f} s" for part, value in seconds.items()}
    return parts | {"peak memory": f"{done.peak_host_gib:.2f} GiB"}


def _watched(module: str, *words: str, tree: Path | None = None, code: int = 0) -> Watched:
    environment = dict(os.environ)
    if tree is not None:
        environment["PYTHONPATH"] = str(tree.resolve())
    safe = ["-P"] if tree is not None else []  # else the current folder's would come first
    command = [sys.executable, *safe, "-m", module, *words]
    done = run_watched(command, environment=environment)
    if done.code != code:
        sys.exit(f"{module} ended with {done.code}:\n{done.output[-4000:]}")
    return done


def _floors(arguments: argparse.Namespace, model: Path, checkpoint: Path) -> dict[str, float]:
    num_tokens = arguments.samples * arguments.seq
    return floors(model, checkpoint, num_tokens=num_tokens, device=arguments.device)


def _distances(ours: dict[str, str], least: dict[str, float], model: Path) -> dict[str, str]:
    """Return each part's share of the total, and how many times its floor it takes."""
    total = _seconds(ours["total"])
    parts = dict(_PART.findall(ours["parts of calibrate"]))
    seconds = {part: float(value) for part, value in parts.items()}
    seconds["export"] = _seconds(ours["export"])
    shares = (f"{part} {value / total:.0%}" for part, value in seconds.items())
    gigabytes, _, reading = ours["reading, meanwhile"].partition(" GB of decoder layers in ")
    share_read = float(gigabytes) * 1e9 / weight_bytes(model)
    took = {
        "read": _seconds(reading) / share_read,
        "forward": seconds.get("ran", 0.0),
        "quantize": seconds.get("quantized", 0.0),
    }
    times = (f"{part} {value / least[part]:.1f} times" for part, value in took.items())
    floor = (f"{part} {value:.2f} s" for part, value in least.items())
    return {
        "harness: shares of the total": ", ".join(shares),
        "floors": ", ".join(floor),
        "harness, over its floor": ", ".join(times),
        "harness's total over the sum of the floors": f"{total / sum(least.values()):.1f}",
    }


def _seconds(words: str) -> float:
    return float(words.split(maxsplit=1)[0])


def _say(values: dict[str, object] | dict[str, str]) -> None:
    for name, value in values.items():
        print(f"{name}: {value}", flush=True)


if __name__ == "__main__":
    main()
