"""Print what `--plan` foretells beside what it took, for models of several sizes.

    python -m scripts.plan_truth [--sizes 15m 135m moe canary] [--busy N] [--suite FILE]
        [--record]

Each model but the canary has random weights, and is planned and quantized by the command that a
user types; the canary is also answered by the reference engine, scored and judged, with the suite
that `--suite` names. `--busy` starts programs that compute while it is planned: then a plan may say
that it cannot be said. `--record` adds a row to the ledger.

What is foretold of an idle machine is seen on an idle one alone. Where other programs run, `chrt -r
1` before the command lets it go before all of them.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from scripts import ledger
from scripts.bench.random_model import write_ids
from scripts.bench.shapes import CANARY

_VOCABULARY = 8192
_SMALL = {"vocab_size": _VOCABULARY, "tie_word_embeddings": True, "max_position_embeddings": 2048}
_HOG = "import torch\ntorch.set_num_threads(1)\na = torch.ones(512, 512)\nwhile True: a @ a"


class Size(NamedTuple):
    """A model, and the samples of 512 tokens that calibrate it."""

    model_type: str
    config: dict[str, Any]
    samples: int


SIZES = {
    "15m": Size(
        "llama",
        {"hidden_size": 256, "num_hidden_layers": 16, "intermediate_size": 768}
        | {"num_attention_heads": 4, "num_key_value_heads": 2},
        128,
    ),
    "135m": Size(
        "llama",
        {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536}
        | {"num_attention_heads": 9, "num_key_value_heads": 3},
        32,
    ),
    "moe": Size(
        "qwen3_moe",
        {"hidden_size": 512, "num_hidden_layers": 8, "moe_intermediate_size": 256}
        | {"num_attention_heads": 8, "num_key_value_heads": 2, "num_experts": 32}
        | {"num_experts_per_tok": 4, "head_dim": 64, "mlp_only_layers": []},
        32,
    ),
}
"""And `canary`, which is shipped."""


def write_model(size: Size, folder: Path) -> None:
    """Write a model of random weights, with the canary's tokenizer."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(size.model_type, **_SMALL, **size.config)
    build = AutoModelForCausalLM.from_config
    build(config, dtype=torch.bfloat16).save_pretrained(folder)  # type: ignore[no-untyped-call]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(CANARY / name, folder)


def words_of(name: str, root: Path, suite: Path | None) -> list[str]:
    """Return the command whose time is foretold."""
    if name == "canary":
        run = ["e2e", "--model", "canary", "--engine", "reference", "--run-dir"]
        asked = ["--suite", str(suite.resolve())] if suite else []
        return [*run, str(root / "canary-run"), "--qformat", "nvfp4", *asked]
    model, ids, size = root / name, root / f"{name}.jsonl", SIZES[name]
    write_model(size, model)
    write_ids(ids, vocabulary=_VOCABULARY, samples=size.samples, length=512)
    run = ["quantize", "--model", str(model), "--out", str(root / f"{name}-run")]
    data = ["--calib-data", str(ids), "--calib-size", str(size.samples), "--calib-seq", "512"]
    return [*run, *data, "--qformat", "nvfp4"]


def typed(words: list[str], root: Path) -> str:
    """Type a command and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", *words],
        env=os.environ | {"HARNESS_BASELINES": str(root / "baselines")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in {0, 4, 5}:  # whatever the verdict
        sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def busy(programs: int) -> Iterator[None]:
    """Let programs compute."""
    started = [subprocess.Popen([sys.executable, "-c", _HOG]) for _ in range(programs)]
    try:
        time.sleep(3.0 if programs else 0.0)
        yield
    finally:
        for program in started:
            program.kill()
            program.wait()


def compare(name: str, words: list[str], root: Path, programs: int) -> dict[str, str]:
    """Return, for each stage and for all, what was foretold and what it took."""
    with busy(programs):
        plan = json.loads(typed([*words, "--plan", "--json"], root))
    typed([*words, "--json"], root)
    took = json.loads((root / f"{name}-run" / "stage_seconds.json").read_text(encoding="utf-8"))
    ranges = {stage: (one["low_s"], one["high_s"]) for stage, one in plan["stage_ranges"].items()}
    ranges["total"] = (sum(low for low, _ in ranges.values()), sum(h for _, h in ranges.values()))
    took["total"] = sum(took[stage] for stage in ranges if stage != "total")
    found = {}
    for stage, (low, high) in ranges.items():
        wrong = max(1.0, low / took[stage], took[stage] / high)
        ending = "within" if wrong == 1.0 else f"wrong by {wrong:.2f} times"
        unsaid = ", said to be unknown" if stage in plan["unsaid"] else ""
        found[f"{name}: {stage}"] = (
            f"{low:.1f} to {high:.1f} s{unsaid}; took {took[stage]:.1f} s: {ending}"
        )
    return found


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=[*SIZES, "canary"])
    parser.add_argument("--busy", type=int, default=0, help="programs that compute while it plans")
    parser.add_argument("--suite", type=Path, help="of the canary's run")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    values: dict[str, str] = {"load of the machine before": f"{os.getloadavg()[0]:.1f}"}
    print(values)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sizes:
            root = Path(folder)
            words = words_of(name, root, arguments.suite)
            found = compare(name, words, root, arguments.busy)
            print("\n".join(f"{stage:<24} {said}" for stage, said in found.items()), flush=True)
            values |= found
    if arguments.record:
        command = " ".join(["python -m scripts.plan_truth", *sys.argv[1:]])
        ledger.append("What --plan foretells, and what it took", command=command, values=values)


if __name__ == "__main__":
    main()
