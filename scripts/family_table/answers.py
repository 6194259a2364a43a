"""What the reference engine answers, and how near to it vLLM is.

vLLM computes in bfloat16 and the reference engine in float32, so they differ where all is well too.
How much is measured, with the reference engine in bfloat16, and is what `near` means.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from harness import shipped
from harness.artifacts import EngineSpec
from harness.serve.reference import serve_reference

NUM_PROMPTS = 4
_TOKENS = 40
_NEW = 8
_ROUNDING = 0.02
"""Mean difference of log probabilities that is rounding whatever the model."""


def prompts() -> list[list[int]]:
    """Return token ids of texts that nothing was calibrated with."""
    lines = (shipped.canary() / "heldout.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [str(json.loads(line)["text"]) for line in lines[:NUM_PROMPTS]]
    return [list(text.encode()[:_TOKENS]) for text in texts]


def by_reference(checkpoint: Path, dtype: str) -> dict[str, Any]:
    """Return log probabilities of the prompts' tokens, and greedy continuations."""
    engine = EngineSpec(name="reference", numerics="declared", device="cpu", dtype=dtype)
    with serve_reference(engine, checkpoint) as served:
        model: Any = getattr(served.model, "thinker", served.model)
        read = [_read(model, ids) for ids in prompts()]
    return {"error": None, "logprobs": [one[0] for one in read], "greedy": [one[1] for one in read]}


@torch.inference_mode()
def _read(model: Any, ids: Sequence[int]) -> tuple[list[float], list[int]]:  # noqa: ANN401 -- any model
    """Return the log probability of each token but the first, and the tokens that follow."""
    known = torch.tensor([ids])
    logprobs = model(input_ids=known, use_cache=False).logits[0].float().log_softmax(dim=-1)
    told = logprobs[:-1].gather(1, known[0, 1:, None])[:, 0].tolist()
    new: list[int] = []
    for _ in range(_NEW):
        new.append(int(logprobs[-1].argmax()))
        grown = torch.tensor([[*ids, *new]])
        logprobs = model(input_ids=grown, use_cache=False).logits[0].float().log_softmax(dim=-1)
    return told, new


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the mean absolute difference of two sets of log probabilities."""
    pairs = zip(_flat(one), _flat(other), strict=True)
    apart = [abs(a - b) for a, b in pairs]
    return sum(apart) / len(apart)


def _flat(answers: dict[str, Any]) -> list[float]:
    return [value for prompt in answers["logprobs"] for value in prompt]


def first_tokens_equal(one: dict[str, Any], other: dict[str, Any]) -> int:
    """Return for how many prompts the first greedy token is the same."""
    pairs = zip(one["greedy"], other["greedy"], strict=True)
    return sum(a[0] == b[0] for a, b in pairs)


def is_near(apart: float, rounding: float) -> bool:
    """Return whether an engine's answers differ from the reference by no more than rounding.

    Arguments:
        apart: between the engines, of a checkpoint.
        rounding: what bfloat16 does to the same checkpoint within the reference engine, or to the
            unquantized model between the engines, whichever is more. Inputs that are rounded to
            four bits go to another code for the least difference, and tokens to another expert.
    """
    return apart <= 1.5 * rounding + _ROUNDING
