"""A smoke set in tokens, the same for the model in this process and for a server."""

from transformers import PreTrainedTokenizerBase

from harness.artifacts import Ask, SmokeSet
from harness.score.asking import AnswerRequest, Encoder, Limits

_LEAST = 2
"""Tokens of a passage: one begins it, one is predicted."""


class SmokePrompts:
    """A tokenizer, and what a smoke set becomes with it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompts: SmokeSet, *, max_length: int
    ) -> None:
        self._encoder = Encoder(tokenizer, thinking=False)
        self._prompts = prompts
        self._max_length = max_length

    def passage(self, text: str) -> list[int]:
        """Return a passage's tokens, as many of the first as fit before one more."""
        tokens = self._encoder.encode(text)[: self._max_length - 1]
        return tokens if len(tokens) >= _LEAST else [self._encoder.prefix, *tokens]

    def asked(self, ask: Ask) -> AnswerRequest:
        """Return a prompt's tokens, the last of them where it leaves no room for its answer."""
        text = ask.prompt
        if self._prompts.apply_chat_template:
            text = self._encoder.render([{"role": "user", "content": text}])
        tokens = self._encoder.encode(text)
        room = self._max_length - ask.max_tokens
        stops = tuple(dict.fromkeys((*ask.stops, self._encoder.end)))
        limits = Limits(stops=stops, answer_budget=ask.max_tokens)
        position = self._prompts.asks.index(ask)
        return AnswerRequest(
            position, ("smoke", position, 0), tokens[-room:], limits, len(tokens) > room
        )
