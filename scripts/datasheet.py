"""Score the canary in every format and write its datasheet.

    python -m scripts.datasheet [--runs DIR]

Runs `harness e2e` for each format and key/value cache (an unchanged run is found again), then
measures the perplexity of the held-aside text on each exported checkpoint, and writes
evals/canary/DATASHEET.md from the verdicts.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from harness import shipped
from harness.artifacts import EngineSpec
from harness.serve import Served
from harness.serve.reference import serve_reference

VARIANTS = (
    ("nvfp4", "none"),
    ("nvfp4", "fp8_cast"),
    ("nvfp4", "fp8"),
    ("nvfp4_experts_only", "none"),
    ("nvfp4_mlp_only", "none"),
    ("w4a16_nvfp4", "none"),
    ("fp8", "none"),
)
ENGINE = EngineSpec(name="reference", numerics="declared", device="cpu", dtype="float32")
_INTRO = """# The canary

A small mixture-of-experts model of the Qwen3.5-MoE architecture (multimodal layout, linear and full
attention, 16 experts of which 4 answer, a shared expert, a vision tower, an MTP layer), trained
from scratch on a synthetic language whose every answer can be checked. It exists to make the whole
chain run anywhere on real accuracy numbers; it knows nothing of the world.

{facts}

Trained by `python -m scripts.canary.train --out evals/canary/model` (seed 1, 3,900 steps of 176 x
192 tokens, about 390 s on an H200 that a second run shared, last loss 0.655); tasks and texts by
`python -m scripts.canary.tasks --out evals`. The vision tower and the MTP layer are random, there
to be kept. Trained on windows of 192 tokens: keep inputs short. Story texts are in the training
data but were not learned well, and are no task.

## Scores

By `python -m scripts.datasheet`: the reference engine, float32 between quantized layers, greedy
answers. Accuracy in percent; in brackets the items lost and won against bf16.

"""


class Row(NamedTuple):
    """One format's results."""

    label: str
    verdict: Mapping[str, Any]
    num_bytes: int
    perplexity: float


def main() -> int:
    """Run everything and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path)
    runs = parser.parse_args().runs or Path(tempfile.mkdtemp())
    rows = [_run(qformat, kv, runs) for qformat, kv in VARIANTS]
    baseline = _perplexity(shipped.canary() / "model")
    page = _INTRO.format(facts=_facts()) + _table(rows, baseline)
    (shipped.canary() / "DATASHEET.md").write_text(page, encoding="utf-8")
    return 0


def _run(qformat: str, kv: str, runs: Path) -> Row:
    label = qformat if kv == "none" else f"{qformat}, KV {kv}"
    run_dir = runs / f"{qformat}-{kv}"
    arguments = ["e2e", "--model", "canary", "--qformat", qformat, "--kv-cache-qformat", kv]
    subprocess.run(
        [sys.executable, "-m", "harness", *arguments, "--run-dir", str(run_dir)], check=False
    )
    verdict = json.loads((run_dir / "verdict.json").read_text(encoding="utf-8"))
    checkpoint = json.loads((run_dir / "checkpoint.json").read_text(encoding="utf-8"))
    return Row(label, verdict, checkpoint["num_bytes"], _perplexity(run_dir / "checkpoint"))


def _perplexity(folder: Path) -> float:
    """Return the perplexity of the held-aside text, each text by itself."""
    lines = (shipped.canary() / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    total, count = 0.0, 0
    with serve_reference(ENGINE, folder) as served, torch.inference_mode():
        for line in lines:
            loss, tokens = _negative_log_likelihood(served, json.loads(line)["text"])
            total, count = total + loss, count + tokens
    return math.exp(total / count)


def _negative_log_likelihood(served: Served, text: str) -> tuple[float, int]:
    ids_1T = served.tokenizer(text, return_tensors="pt").input_ids
    logits_1TV = served.model(input_ids=ids_1T, use_cache=False).logits
    loss = functional.cross_entropy(logits_1TV[0, :-1].float(), ids_1T[0, 1:], reduction="sum")
    return float(loss), ids_1T.shape[1] - 1


def _facts() -> str:
    folder = shipped.canary() / "model"
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))["text_config"]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    facts = {
        "size in bf16": f"{size / 1e6:.1f} MB",
        "hidden size": text["hidden_size"],
        "layers": ", ".join(text["layer_types"]),
        "experts": f"{text['num_experts']} of width {text['moe_intermediate_size']}, "
        f"top {text['num_experts_per_tok']}",
        "shared expert": f"width {text['shared_expert_intermediate_size']}",
        "vocabulary": f"{text['vocab_size']} rows, one token a byte",
    }
    return "| what | value |\n| --- | --- |\n" + "\n".join(
        f"| {k} | {v} |" for k, v in facts.items()
    )


def _table(rows: list[Row], baseline_perplexity: float) -> str:
    tasks = rows[0].verdict["tasks"]
    head = ["format", "verdict", "MB", "perplexity", *(f"{t['task']} ({t['tier']})" for t in tasks)]
    size = sum(p.stat().st_size for p in (shipped.canary() / "model").glob("*.safetensors"))
    first = ["bf16", "baseline", f"{size / 1e6:.1f}", f"{baseline_perplexity:.4f}"]
    lines = [head, ["---"] * len(head), first + [f"{100 * t['baseline']:.1f}" for t in tasks]]
    for row in rows:
        scores = [
            f"{100 * t['candidate']:.1f} (-{t['num_lost']} +{t['num_won']})"
            for t in row.verdict["tasks"]
        ]
        facts = [row.label, row.verdict["decision"], f"{row.num_bytes / 1e6:.1f}"]
        lines.append([*facts, f"{row.perplexity:.4f}", *scores])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
