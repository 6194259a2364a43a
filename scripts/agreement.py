"""Score the same checkpoints on the reference engine and on vLLM, and print how far they agree.

    python -m scripts.agreement [CHECKPOINT ...] [--vllm PYTHON] [--items N] [--record]

Without a checkpoint the canary itself is taken, in bfloat16. For each one, both engines answer the
suite, and both read the same held-aside texts: per task the two accuracies and the items that only
one of them answers rightly, and over all texts the mean absolute difference of the log
probabilities of the same tokens. The reference engine computes in float32 unless `--dtype` says
otherwise and vLLM in bfloat16; what that alone does to a checkpoint is measured beside it, on the
reference engine in bfloat16. `--record` adds a row to the ledger.
"""

import argparse
import itertools
import json
import logging
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from harness import shipped
from harness.artifacts import Arm, Endpoint, EngineSpec, Suite
from harness.recipe import load_suite
from harness.score import read_arm, score
from harness.score.client import connect
from harness.serve import Served, resolve_engine, serve
from harness.serve.reference import serve_reference
from scripts import ledger

_LONGEST = 192
"""Tokens of a text; the canary was trained on windows of so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One checkpoint on one engine."""

    arm: Arm
    logprobs: tuple[tuple[float, ...], ...]
    """Of every token but the first of each text."""
    engine: str


def main() -> int:
    """Measure every checkpoint on both engines, and print."""
    arguments = _parse()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("harness").setLevel(logging.INFO)
    suite = _shorten(load_suite(arguments.suite), arguments.items)
    reference = EngineSpec(
        name="reference", numerics="declared", device=arguments.device, dtype=arguments.dtype
    )
    vllm = EngineSpec(
        name="vllm",
        numerics="declared",
        device=arguments.device,
        dtype="auto",
        max_model_len=suite.max_model_len,
        place=arguments.vllm,
    )
    texts = _read_texts(arguments.texts)
    for folder in arguments.checkpoint or [shipped.canary() / "model"]:
        ours, theirs = (
            _measure(resolve_engine(e), folder, suite, texts) for e in (reference, vllm)
        )
        values = {**_compare(ours, theirs), **_rounding(reference, folder, ours, texts)}
        print(f"\n{folder}\n  {ours.engine}\n  {theirs.engine}")
        for what, value in values.items():
            print(f"{what:<32} {value}")
        if arguments.record:
            ledger.append(
                f"Agreement of the reference engine and vLLM on {_label(folder)}",
                command="python -m scripts.agreement --record",
                values=values,
            )
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="*", type=Path)
    parser.add_argument("--vllm", help="Python of the environment that holds vLLM")
    parser.add_argument("--suite", default="canary")
    parser.add_argument("--items", type=int, help="of each task, at most")
    parser.add_argument("--texts", type=int, default=64, help="held-aside texts that are read")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of the reference engine")
    parser.add_argument("--record", action="store_true")
    return parser.parse_args()


def _shorten(suite: Suite, items: int | None) -> Suite:
    if items is None:
        return suite
    tasks = tuple(replace(task, items=min(task.items, items)) for task in suite.tasks)
    return replace(suite, tasks=tasks)


def _read_texts(count: int) -> list[str]:
    lines = (shipped.canary() / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)["text"]) for line in lines[:count]]


def _measure(engine: EngineSpec, folder: Path, suite: Suite, texts: Sequence[str]) -> Measured:
    with (
        tempfile.TemporaryDirectory() as scratch,
        serve(engine, folder, records=Path(scratch) / "records") as served,
    ):
        score(served, suite, arm="candidate", into=Path(scratch))
        if isinstance(served, Endpoint):
            found = _read_over_http(served, texts)
        else:
            found = _read_in_process(served, texts)
        how = served.deployment
        kernels = ", ".join(f"{part} {kernel}" for part, kernel in how.kernels.items())
        spelled = f"{how.engine} {how.version} on {how.device}, {how.dtype}; {kernels}"
        arm = read_arm(Path(scratch))
    return Measured(arm=arm, logprobs=tuple(map(tuple, found)), engine=spelled)


def _read_in_process(served: Served, texts: Sequence[str]) -> list[list[float]]:
    found = []
    for text in texts:
        ids_T = torch.tensor(served.tokenizer.encode(text)[:_LONGEST], device=served.model.device)
        with torch.inference_mode():
            logits_TV = served.model(input_ids=ids_T[None], use_cache=False).logits[0].float()
        logprobs_TV = logits_TV[:-1].log_softmax(dim=-1)
        found.append(logprobs_TV.gather(1, ids_T[1:, None])[:, 0].tolist())
    return found


def _read_over_http(served: Endpoint, texts: Sequence[str]) -> list[list[float]]:
    from transformers import AutoTokenizer  # noqa: PLC0415 -- slow to import

    tokenizer: Any = AutoTokenizer.from_pretrained(served.tokenizer)
    asked = {"model": served.model, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
    payloads = [asked | {"prompt": tokenizer.encode(text)[:_LONGEST]} for text in texts]
    with connect(served) as server:
        replies = server.send("/v1/completions", payloads).result()
    found = []
    for reply in replies:
        if reply.body is None:
            sys.exit(f"a text could not be read: {reply.error}")
        # The first token follows nothing, and the last one was generated.
        found.append(reply.body["choices"][0]["logprobs"]["token_logprobs"][1:-1])
    return found


def _rounding(
    engine: EngineSpec, folder: Path, ours: Measured, texts: Sequence[str]
) -> Mapping[str, str]:
    """Return what bfloat16 between layers does within the reference engine."""
    with serve_reference(replace(engine, dtype="bfloat16"), folder) as served:
        rounded = _read_in_process(served, texts)
    absolute = [
        abs(b - a)
        for one, two in zip(ours.logprobs, rounded, strict=True)
        for a, b in zip(one, two, strict=True)
    ]
    name = "the same, reference in bfloat16"
    return {name: f"{sum(absolute) / len(absolute):.5f}, largest {max(absolute):.3f}"}


def _compare(ours: Measured, theirs: Measured) -> Mapping[str, str]:
    values: dict[str, str] = {}
    for left, right in zip(ours.arm.scorecard.tasks, theirs.arm.scorecard.tasks, strict=True):
        pairs = zip(ours.arm.samples[left.task], theirs.arm.samples[left.task], strict=True)
        flips = [a.value - b.value for a, b in pairs if a.value != b.value]
        lost, won = sum(f > 0 for f in flips), sum(f < 0 for f in flips)
        errors = f", {right.num_errors} errors" if right.num_errors else ""
        accuracies = f"{100 * left.value:.2f} % and {100 * right.value:.2f} %"
        values[left.task] = f"{accuracies} of {left.num_items} (-{lost} +{won}){errors}"
    differences = [
        b - a
        for one, two in zip(ours.logprobs, theirs.logprobs, strict=True)
        for a, b in zip(one, two, strict=True)
    ]
    absolute = [abs(d) for d in differences]
    values["tokens read"] = str(len(absolute))
    values["mean difference of logprobs"] = f"{sum(absolute) / len(absolute):.5f}"
    values["largest"] = f"{max(absolute):.3f}"
    values["mean difference"] = f"{sum(differences) / len(differences):+.5f}"
    values["perplexity"] = f"{_perplexity(ours):.4f} and {_perplexity(theirs):.4f}"
    return values


def _perplexity(measured: Measured) -> float:
    every = list(itertools.chain.from_iterable(measured.logprobs))
    return math.exp(-sum(every) / len(every))


def _label(folder: Path) -> str:
    if folder == shipped.canary() / "model":
        return "the canary in bf16"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    declared = config.get("quantization_config") or {}
    kv = ", KV FP8" if declared.get("kv_cache_scheme") else ""
    return f"a checkpoint with quant_algo {declared.get('quant_algo')}{kv}"


if __name__ == "__main__":
    sys.exit(main())
