"""The smoke set, put to a model in this process.

Letters: T tokens of a passage, V tokens of the vocabulary, K likeliest ones.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.artifacts import Ask, Reading, SmokeSet
from harness.score.asking import Drawing, Limits, seed_of
from harness.score.generation import generate
from harness.score.probe_prompts import SmokePrompts
from harness.score.recording import Finish
from harness.score.reference_lm import Answering
from harness.score.replies import Answer

_SMALL = 100_000_000
"""Parameters of a model that one thread is enough for."""
_DIGITS = 5
"""Of a kept log probability."""
_NOT_FINITE = "the model's logits are not finite"


class LocalProbed:
    """A model in this process."""

    def __init__(self, served: Answering, prompts: SmokeSet) -> None:
        self._served = served
        self._prompts = prompts
        self._tokens = SmokePrompts(served.tokenizer, prompts, max_length=prompts.max_model_len)

    def read(self) -> Callable[[], tuple[Reading, ...]]:
        """Return what reads the log probabilities of the set's passages, one by one."""
        return self._read_all

    def answer(self, asks: Sequence[Ask], *, seed: int | None) -> Callable[[], list[Answer]]:
        """Return what answers the prompts; those that end alike share a batch."""
        return partial(self._answer, asks, seed)

    def _read_all(self) -> tuple[Reading, ...]:
        with _threads_that_pay(self._served.model):
            return tuple(
                self._read(passage.id, self._tokens.passage(passage.text))
                for passage in self._prompts.passages
            )

    def _answer(self, asks: Sequence[Ask], seed: int | None) -> list[Answer]:
        asked = [self._tokens.asked(ask) for ask in asks]
        by_limits: dict[Limits, list[int]] = {}
        for index, one in enumerate(asked):
            by_limits.setdefault(one.limits, []).append(index)
        answers: dict[int, Answer] = {}
        for limits, indices in by_limits.items():
            prompts = [asked[index].tokens for index in indices]
            seeds = [seed_of(seed or 0, ("smoke", index, 0)) for index in indices]
            how = limits if seed is None else replace(limits, drawing=Drawing())
            with _threads_that_pay(self._served.model):
                generated = generate(
                    self._served.model, self._served.tokenizer, prompts, how, seeds=seeds
                )
            for index, said in zip(indices, generated, strict=True):
                finish = said.finish
                answers[index] = (
                    Answer(said.text, finish)
                    if said.finite
                    else Answer("", Finish.ERROR, _NOT_FINITE)
                )
        return [answers[index] for index in range(len(asks))]

    def _read(self, name: str, tokens: list[int]) -> Reading:
        model = self._served.model
        ids_BT = torch.tensor([tokens], device=model.device)
        with torch.inference_mode():
            logits_TV = model(input_ids=ids_BT, use_cache=False).logits[0, :-1].float()
        logprobs_TV = logits_TV.log_softmax(dim=-1)
        rows = list(zip(logprobs_TV, tokens[1:], strict=True))
        values = [_finite(float(row_V[token])) for row_V, token in rows]
        top = min(self._prompts.top_k, logprobs_TV.shape[-1])
        return Reading(
            passage=name,
            tokens=tuple(tokens),
            logprobs=tuple(values),
            top=tuple(_top(row_V, token, top) for row_V, token in rows),
        )


@contextmanager
def _threads_that_pay(model: PreTrainedModel) -> Iterator[None]:
    """Compute with one thread inside, where a model on the CPU is small.

    One token of one prompt is thousands of tiny operations: a second thread gains nothing, and
    where another process has the core, each of them waits for it.
    """
    is_small = model.device.type == "cpu" and model.num_parameters() < _SMALL
    num_threads = torch.get_num_threads()
    if is_small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _top(row_V: Tensor, token: int, size: int) -> Mapping[int, float]:
    """Return the likeliest tokens and the one that is there; what is not finite is left out."""
    values_K, ids_K = row_V.topk(size)
    found = dict(zip(ids_K.tolist(), values_K.tolist(), strict=True)) | {token: float(row_V[token])}
    return {one: round(value, _DIGITS) for one, value in found.items() if math.isfinite(value)}


def _finite(value: float) -> float | None:
    return round(value, _DIGITS) if math.isfinite(value) else None
