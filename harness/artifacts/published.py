"""A score that somebody has published of a model, and how a baseline's compares with it."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from harness.artifacts.limits import STRICT, Count, Number, Share, Text


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How a published score was measured; None where its source does not say."""

    __pydantic_config__ = STRICT
    chat_template: bool | None = None
    num_fewshot: Number | None = None
    thinking: bool | None = None
    thinking_budget: Number | None = None
    """Tokens for the thoughts, where they have a budget of their own."""
    max_gen_toks: Count | None = None
    """Tokens of an answer; with the thoughts, where these have no budget of their own."""
    max_model_len: Count | None = None
    temperature: Annotated[float | None, Field(ge=0)] = None
    top_p: Share | None = None
    top_k: Number | None = None
    repeats: Count | None = None
    """Answers to each item."""
    metric: Text | None = None
    filter: Text | None = None
    items: Count | None = None


UNSAID = Protocol()


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A published score of a task."""

    __pydantic_config__ = STRICT
    model: Text
    """Of which it is: a Hub id, such as `Qwen/Qwen3-8B`, or a folder's name."""
    value: float
    """In the metric's own unit: a fraction of 1, a value within `value_range`, or a perplexity."""
    tolerance: Annotated[float, Field(ge=0)]
    """How far a baseline may be away, in the same unit: other items, other versions, rounding."""
    source: Text
    """Where it is published."""
    protocol: Protocol = UNSAID
    digest: Annotated[str | None, Field(pattern="^[0-9a-f]{12,64}$")] = None
    """Of the model's files, or its beginning: where it is given, it decides which model that is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plausibility:
    """A baseline's score beside a published one."""

    published: Published
    is_plausible: bool | None
    """None where they were not compared."""
    is_of_baseline: bool = True
    """Whether the baseline is the model of which it is published; another is not compared."""
    low: float | None = None
    """One-sided lower bound of the baseline's score, in the metric's own unit."""
    high: float | None = None
    """One-sided upper bound."""
    differences: tuple[str, ...] = ()
    """In which the protocols differ, such as `worked examples: 8 there, 5 here`."""
    message: str = ""
    """All of it as a clause."""
