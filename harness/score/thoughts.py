"""What was thought and what was answered, told apart, each held to a budget of its own.

A model that thinks is asked for as many tokens as both budgets have together, since that is the one
limit that every engine heeds. What it made of them is read afterwards, by one rule whatever engine
answers:

- Its thoughts end at the last `think_end_token` within their budget. Where there is none, they
  outran it, and whatever follows is no answer (`thoughts_cut`).
- Its answer is what follows, as far as the task's own budget goes. A stop string or the end of the
  text within that ends it; else it is cut (`length`), and the rest does not count.

No engine is asked to end thoughts by force, as vLLM and TensorRT-LLM (`thinking_token_budget`) and
SGLang can where their server was started for it. What a model says after it was interrupted is
another answer than its own, and engines that cannot interrupt would score otherwise.

Tokens are those that the model's tokenizer makes of a text. A server that renders chats itself
leaves us none: there they are the ones that it names with their log probabilities.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from harness.score.asking import Limits, Thoughts
from harness.score.recording import Finish


class Told(NamedTuple):
    """What one generated text is."""

    answer: str
    """Up to the first stop string, which is no part of it; empty where the thoughts were cut."""
    finish: Finish
    """At a stop, or which budget it outran."""
    num_thought_tokens: int | None = None
    """With what ends the thoughts, if only the text's end; None for a model that does not think."""


class Spoken(NamedTuple):
    """What a server of chats says was generated."""

    content: str
    """The answer; with the thoughts before it where the server leaves them there."""
    is_apart: bool
    """Whether the server took the thoughts apart."""
    tokens: Sequence[str]
    """The text of each token of thoughts and answer."""


def tell(
    text: str, limits: Limits, tokenizer: PreTrainedTokenizerBase | None, *, stopped: bool
) -> Told:
    """Tell thoughts from answer in a text.

    Args:
        text: all that was generated, without the token that ended it.
        limits: the budgets, and where an answer stops.
        tokenizer: the model's; may be None for one that does not think.
        stopped: whether the model ended by itself.
    """
    if limits.thoughts is None:
        return _at_stops(text, limits, stopped=stopped)
    if tokenizer is None:
        message = "thoughts are counted in tokens, and there is no tokenizer. A bug of harness."
        raise AssertionError(message)
    end, budget = limits.thoughts
    spelled = _spelled(tokenizer, text)
    head = _text(tokenizer, spelled[:budget]) if len(spelled) > budget else text
    parts = text.split(end)
    num_ends = min(head.count(end), len(parts) - 1)
    if not num_ends:
        thought, found, _ = text.partition(end)
        count = len(_spelled(tokenizer, thought + end)) if found else len(spelled) + stopped
        return Told("", Finish.THOUGHTS_CUT, count)
    count = len(_spelled(tokenizer, end.join(parts[:num_ends]) + end))
    answer = end.join(parts[num_ends:])
    spelled = _spelled(tokenizer, answer)
    # The token that ended the answer takes one of its budget, as in an engine.
    if len(spelled) + stopped > limits.answer_budget:
        answer, stopped = _text(tokenizer, spelled[: limits.answer_budget]), False
    return _at_stops(answer.lstrip(), limits, stopped=stopped, num_thought_tokens=count)


def tell_chat(spoken: Spoken, limits: Limits, *, stopped: bool) -> Told:
    """Do the same with what a server of chats says.

    Raises:
        ValueError: its text lacks what ends the thoughts.
    """
    if limits.thoughts is None:
        return _at_stops(spoken.content, limits, stopped=stopped)
    place = _end_of(limits.thoughts, spoken.tokens[: limits.thoughts.budget])
    lengths = list(accumulate(map(len, spoken.tokens)))
    if place is None:
        late = _end_of(limits.thoughts, spoken.tokens)
        count = len(lengths) if late is None else bisect_left(lengths, late) + 1
        return Told("", Finish.THOUGHTS_CUT, count)
    count = bisect_left(lengths, place) + 1
    last = count + limits.answer_budget
    if len(lengths) > last:
        answer, stopped = "".join(spoken.tokens[:last])[place:], False
    else:
        answer = spoken.content if spoken.is_apart else _behind(spoken, limits.thoughts)
    return _at_stops(answer.lstrip(), limits, stopped=stopped, num_thought_tokens=count)


def _behind(spoken: Spoken, thoughts: Thoughts) -> str:
    """Return what follows the thoughts where the server left them before the answer."""
    num_ends = "".join(spoken.tokens[: thoughts.budget]).count(thoughts.end)
    parts = spoken.content.split(thoughts.end)
    if len(parts) <= num_ends:
        message = f"its text lacks '{thoughts.end}', which ends its thoughts"
        raise ValueError(message)
    return thoughts.end.join(parts[num_ends:])


def _end_of(thoughts: Thoughts, tokens: Sequence[str]) -> int | None:
    """Return how many letters of the tokens' text are thoughts; None where these do not end."""
    found = "".join(tokens).rfind(thoughts.end)
    return None if found < 0 else found + len(thoughts.end)


def _at_stops(
    text: str, limits: Limits, *, stopped: bool, num_thought_tokens: int | None = None
) -> Told:
    for stop in limits.stops:
        text, found, _ = text.partition(stop)
        stopped = stopped or bool(found)
    return Told(text, Finish.STOP if stopped else Finish.LENGTH, num_thought_tokens)


def _spelled(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _text(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> str:
    return str(
        tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )
