"""What a model is asked before it is scored."""

from dataclasses import dataclass

from harness.artifacts.limits import STRICT, Count, Text

WAY_OF_ASKING = "2"
"""Another where a set is asked otherwise: kept answers are compared with those of the same way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """One prompt."""

    __pydantic_config__ = STRICT
    id: Text
    prompt: Text
    expect: tuple[Text, ...] = ()
    """Any of these in the answer makes it right; empty where nothing is expected."""
    max_tokens: Count
    """Of the answer."""
    stops: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """One text that the model is read the log probability of each token of."""

    __pydantic_config__ = STRICT
    id: Text
    text: Text


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeSet:
    """Everything that is asked before scoring."""

    name: str
    apply_chat_template: bool
    """Whether prompts are asked as a user's message; passages never are."""
    max_model_len: int
    """Tokens of prompt and answer together."""
    seed: int
    top_k: int
    """Likeliest tokens of each position whose log probabilities are kept."""
    passages: tuple[Passage, ...]
    asks: tuple[Ask, ...]
    digest: str
    """sha256 of the above; no part of a suite's digest, for it changes no score."""

    @property
    def alone(self) -> tuple[Ask, ...]:
        """Return the prompts that are asked by themselves, in their order.

        All known answers, for batching is judged on them, and the longest open prompt: kernels of
        one row may fail after many steps.
        """
        open_ones = [ask for ask in self.asks if not ask.expect]
        longest = max(open_ones, key=lambda ask: ask.max_tokens, default=None)
        return tuple(ask for ask in self.asks if ask.expect or ask is longest)
