"""What a server's reply says: the answer and why it ended, or a log-likelihood, or what is wrong.

Nothing is guessed: a reply without a reason why it ended, with other tokens than were sent, or
with a log probability that is no number is a failed request.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from harness.over_http import in_words
from harness.score.asking import AnswerRequest
from harness.score.client import HttpReply
from harness.score.recording import Finish

T = TypeVar("T")
CLAMPED = -9999.0
"""vLLM writes this for minus infinity, which JSON cannot hold."""


class _WrongReplyError(Exception):
    """A reply that is no answer, in words."""


class Answer(NamedTuple):
    """What was generated for one request."""

    text: str
    finish: Finish
    error: str | None = None


class Chosen(NamedTuple):
    """What was read for one given continuation."""

    log_likelihood: float
    is_greedy: bool
    error: str | None = None


def read_answer(reply: HttpReply, asked: AnswerRequest) -> Answer:
    """Read a completion."""

    def read(body: Mapping[str, Any]) -> Answer:
        choice = body["choices"][0]
        logprobs = choice.get("logprobs") or {}
        _check_finite(logprobs.get("token_logprobs") or ())
        _check_count(body, len(asked.tokens))
        return _settle(choice["text"], choice.get("finish_reason"), asked)

    return _read(reply, read, lambda error: Answer("", Finish.ERROR, error))


def read_chat(reply: HttpReply, asked: AnswerRequest) -> Answer:
    """Read a chat completion, in which the server may have taken the thoughts apart."""

    def read(body: Mapping[str, Any]) -> Answer:
        choice = body["choices"][0]
        message = choice["message"]
        content = message.get("content")
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        end = asked.limits.think_end
        if end is not None and thoughts and content is not None:
            content = end + content
        return _settle(content or "", choice.get("finish_reason"), asked)

    return _read(reply, read, lambda error: Answer("", Finish.ERROR, error))


def read_chosen(reply: HttpReply, tokens: Sequence[int], num_context: int) -> Chosen:
    """Read the log-likelihood of what follows the first `num_context` of `tokens`."""

    def read(body: Mapping[str, Any]) -> Chosen:
        _check_count(body, len(tokens))
        logprobs = body["choices"][0]["logprobs"]
        here = slice(num_context, len(tokens))
        values, tops = logprobs["token_logprobs"][here], logprobs["top_logprobs"][here]
        if not len(values) == len(tops) == len(tokens) - num_context:
            message = f"{len(values)} log probabilities for {len(tokens) - num_context} tokens"
            raise _WrongReplyError(message)
        _check_finite(values)
        is_greedy = all(v >= max(top.values()) for v, top in zip(values, tops, strict=True))
        return Chosen(sum(values), is_greedy)

    return _read(reply, read, lambda error: Chosen(-math.inf, is_greedy=False, error=error))


def _read(
    reply: HttpReply, read: Callable[[Mapping[str, Any]], T], failed: Callable[[str], T]
) -> T:
    if reply.body is None:
        return failed(reply.error or "no answer")
    try:
        return read(reply.body)
    except _WrongReplyError as error:
        return failed(in_words(str(error)))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        return failed(in_words(f"the answer cannot be read: {type(error).__name__} {error}"))


def _settle(text: object, reason: object, asked: AnswerRequest) -> Answer:
    """Cut the answer at its stops.

    Raises:
        UnicodeEncodeError: a part of it is no text (half of a surrogate pair).
    """
    if not isinstance(text, str):
        message = f"the answer is of type {type(text).__name__}, no text"
        raise _WrongReplyError(message)
    text.encode()
    if reason not in {"stop", "length"}:
        message = f"the answer ended by '{reason}', neither 'stop' nor 'length'"
        raise _WrongReplyError(message)
    answer, stopped = asked.limits.settle(text, stopped=reason == "stop")
    return Answer(answer, Finish.STOP if stopped else Finish.LENGTH)


def _check_count(body: Mapping[str, Any], num_sent: int) -> None:
    num_read = (body.get("usage") or {}).get("prompt_tokens", num_sent)
    if num_read != num_sent:
        message = f"the server read {num_read} tokens where {num_sent} were sent"
        raise _WrongReplyError(message)


def _check_finite(log_probabilities: Sequence[float | None]) -> None:
    for value in log_probabilities:
        if value is None or not math.isfinite(value) or value <= CLAMPED:
            message = f"a log probability is {value}, not a finite number"
            raise _WrongReplyError(message)
