"""Answers to a batch of prompts, greedy or drawn, and why each of them ended.

transformers generates until every row has ended or the budget is used up. Rows of one batch have
different stop strings in different places, so each row is ended by itself and what follows in it
is dropped. Prompts are padded on the left and the padding is masked.

Each row is drawn with a generator of its own, so that it does not matter what is asked beside it:
to the logarithm of each token's chance a Gumbel number is added, and the largest is taken.

Letters: B prompts, T tokens of the longest, V tokens of the vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

from harness.score.asking import Drawing, Limits
from harness.score.recording import Finish
from harness.score.thoughts import tell

_EXTRA_TOKENS = 2
"""A stop string may begin or end inside a token, so that many more tokens are looked at."""


class Generated(NamedTuple):
    """One answer."""

    text: str
    """After the thoughts, up to the first stop string, which is no part of it."""
    finish: Finish
    """At a stop string or an end token, or which budget it outran."""
    finite: bool
    """Whether every step had finite logits; without them the text means nothing."""
    num_tokens: int
    """Of thoughts and answer, with the token that ended it."""
    num_thought_tokens: int | None
    """None for a model that does not think."""


class _StopStrings(StoppingCriteria):
    """Ends each row at the first of its stop strings, and counts the tokens up to it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stops: tuple[str, ...], prompt_BT: Tensor
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._prompt_length = prompt_BT.shape[1]
        lengths = [len(tokenizer.encode(stop, add_special_tokens=False)) for stop in stops]
        self._lookback = max(lengths, default=0) + _EXTRA_TOKENS
        self._done_B = torch.zeros(len(prompt_BT), dtype=torch.bool, device=prompt_BT.device)
        self.num_tokens: dict[int, int] = {}

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:  # noqa: ANN401, ARG002 -- transformers' signature
        answers_BT = input_ids[:, self._prompt_length :]
        texts = self._tokenizer.batch_decode(answers_BT[:, -self._lookback :])
        for row, text in enumerate(texts):
            if row not in self.num_tokens and any(stop in text for stop in self._stops):
                self._done_B[row] = True
                self.num_tokens[row] = answers_BT.shape[1]
        return self._done_B


class _Finiteness(LogitsProcessor):
    """Notes rows whose logits hold NaN or infinity, which argmax would hide."""

    def __init__(self, prompt_BT: Tensor) -> None:
        self.finite_B = torch.ones(len(prompt_BT), dtype=torch.bool, device=prompt_BT.device)

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ANN401, ARG002 -- transformers' signature
        finite_B = scores.amax(dim=-1).isfinite()
        self.finite_B &= finite_B
        # From NaN no token can be drawn; what such a row goes on with means nothing.
        return scores if finite_B.all() else torch.where(finite_B[:, None], scores, 0.0)


class _Drawn(LogitsProcessor):
    """Moves the scores so that the largest of a row is a token drawn with the row's generator."""

    def __init__(self, drawing: Drawing, seeds: Sequence[int]) -> None:
        self._drawing = drawing
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:  # noqa: ANN401, ARG002 -- transformers' signature
        likely_BV = _keep_likely(scores.float() / self._drawing.temperature, self._drawing)
        uniform_BV = torch.stack(
            [torch.rand(scores.shape[-1], generator=one) for one in self._generators]
        )
        tiny = torch.finfo(torch.float32).tiny
        return likely_BV - torch.log(-torch.log(uniform_BV.clamp_min(tiny))).to(scores.device)


def _keep_likely(scores_BV: Tensor, drawing: Drawing) -> Tensor:
    """Return the scores, minus infinity for tokens that may not be drawn."""
    if drawing.top_k:
        least_B1 = scores_BV.topk(min(drawing.top_k, scores_BV.shape[-1])).values[:, -1:]
        scores_BV = scores_BV.masked_fill(scores_BV < least_B1, -torch.inf)
    if drawing.top_p < 1:
        sorted_BV, order_BV = scores_BV.sort(dim=-1, descending=True)
        chance_BV = sorted_BV.softmax(dim=-1)
        # A token stays if those before it have less than top_p together; so the first always does.
        left_out_BV = chance_BV.cumsum(dim=-1) - chance_BV >= drawing.top_p
        left_out_BV = torch.zeros_like(left_out_BV).scatter(-1, order_BV, left_out_BV)
        scores_BV = scores_BV.masked_fill(left_out_BV, -torch.inf)
    return scores_BV


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    limits: Limits,
    *,
    seeds: Sequence[int] = (),
) -> list[Generated]:
    """Answer each prompt (token ids), all of them at once; one seed each where they are drawn."""
    ends = _end_tokens(model, tokenizer)
    pad = ends[0] if ends else 0
    prompt_BT, mask_BT = _pad_left(prompts, pad, model.device)
    stop_strings = _StopStrings(tokenizer, limits.engine_stops, prompt_BT)
    finiteness = _Finiteness(prompt_BT)
    processors: list[LogitsProcessor] = [finiteness]
    if limits.drawing is not None:
        processors.append(_Drawn(limits.drawing, seeds))
    settings = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        max_new_tokens=limits.max_new_tokens,
        do_sample=False,
        eos_token_id=list(ends) or None,
        pad_token_id=pad,
        use_cache=True,
    )
    generate_tokens: Any = model.generate  # transformers leaves it untyped
    output_BT = generate_tokens(
        input_ids=prompt_BT,
        attention_mask=mask_BT,
        generation_config=settings,
        stopping_criteria=StoppingCriteriaList([stop_strings]),
        logits_processor=LogitsProcessorList(processors),
    )
    answers: list[Generated] = []
    for row, tokens in enumerate(output_BT[:, prompt_BT.shape[1] :].tolist()):
        at_stop = stop_strings.num_tokens.get(row)
        at_end = next((i for i, token in enumerate(tokens) if token in ends), None)
        # The token that ends the thoughts may count as special.
        plain = limits.thoughts is None
        text = str(tokenizer.decode(tokens[:at_stop][:at_end], skip_special_tokens=plain))
        # The token that ended the answer was generated as well.
        ends_at = len(tokens) if at_end is None else at_end + 1
        num_tokens = ends_at if at_stop is None else min(ends_at, at_stop)
        stopped = at_stop is not None or at_end is not None
        told = tell(text, limits, tokenizer, stopped=stopped)
        finite = bool(finiteness.finite_B[row])
        num_thoughts = told.num_thought_tokens
        answers.append(Generated(told.answer, told.finish, finite, num_tokens, num_thoughts))
    return answers


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return the tokens that end an answer: the tokenizer's, then the model's."""
    settings = model.generation_config
    configured = settings.eos_token_id if settings is not None else None
    several = configured if isinstance(configured, list) else [configured]
    ends = [token for token in (tokenizer.eos_token_id, *several) if isinstance(token, int)]
    return tuple(dict.fromkeys(ends))


def _pad_left(
    prompts: Sequence[Sequence[int]], pad: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    length = max(len(prompt) for prompt in prompts)
    rows = [[pad] * (length - len(prompt)) + list(prompt) for prompt in prompts]
    masks = [[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(rows, device=device), torch.tensor(masks, device=device)
