"""What a server's reply says: the answer and why it ended, or a log-likelihood, or what is wrong.

Nothing is guessed: a reply without a reason why it ended, with other tokens than were sent, or
with a log probability that is no number is a failed request. What a server's first answers have
shown (harness.score.proof) every later one must show too; one by another model or to another
prompt ends the run, for then no answer can be told from a stranger's.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from transformers import PreTrainedTokenizerBase

from harness.errors import EngineError
from harness.over_http import in_words
from harness.score.asking import AnswerRequest
from harness.score.client import HttpReply
from harness.score.recording import Finish
from harness.score.thoughts import Spoken, Told, tell, tell_chat

T = TypeVar("T")
CLAMPED = -9999.0
"""vLLM writes this for minus infinity, which JSON cannot hold."""
_ABOVE = 1e-3
"""How far rounding may lift a log probability above 0."""
_ENDS = ("stop", "length")


class Shown(NamedTuple):
    """What a server's first answers have shown, and each later one must."""

    base_url: str
    model: str
    """As its answers name it."""
    names_tokens: bool
    """Whether an answer names the tokens of its prompt."""
    counts_tokens: bool
    """Whether it says how many there were."""
    has_logprobs: bool
    """Whether generated tokens come with their log probabilities."""
    echoes: bool = False
    """Whether a prompt's text comes back as its tokens are spelled here."""
    fingerprint: str | None = None
    """Digest of what it answered: another model would hardly have answered so. None where too
    little can be seen."""


class WrongReplyError(Exception):
    """A reply that is no answer, in words."""


class Answer(NamedTuple):
    """What was generated for one request."""

    text: str
    finish: Finish
    error: str | None = None
    num_tokens: int | None = None
    """All that was generated, as the server counts it; None where it does not say."""
    num_thought_tokens: int | None = None
    """As the text tells; of a model that should not think, as the server says."""
    whole: str = ""
    """The text with its thoughts, and what follows its stop."""


class Chosen(NamedTuple):
    """What was read for one given continuation."""

    log_likelihood: float
    is_greedy: bool
    error: str | None = None


def read_answer(
    reply: HttpReply,
    asked: AnswerRequest,
    shown: Shown | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Answer:
    """Read a completion.

    Args:
        reply: what came back.
        asked: the request.
        shown: what the server's first answers have shown.
        tokenizer: the model's; needed for one that thinks.

    Raises:
        EngineError: it is another model's, or an answer to another prompt.
    """

    def read(body: Mapping[str, Any]) -> Answer:
        check_origin(body, asked.tokens, shown)
        choice = only_choice(body)
        values = logprobs_of(choice)
        check_logprobs(values)
        if shown is not None and shown.has_logprobs and choice["text"] and not values:
            message = "the answer came without log probabilities, and earlier ones had them"
            raise WrongReplyError(message)
        check_budget(body, len(values), asked.limits.max_new_tokens)
        text, stopped = _text(choice["text"]), check_end(choice) == "stop"
        told = tell(text, asked.limits, tokenizer, stopped=stopped)
        return _answer(told, text, body, values)

    return _read(reply, read, lambda error: _failed(reply, error))


def read_chat(reply: HttpReply, asked: AnswerRequest, shown: Shown | None = None) -> Answer:
    """Read a chat completion, in which the server may have taken the thoughts apart.

    Raises:
        EngineError: it is another model's.
    """

    def read(body: Mapping[str, Any]) -> Answer:
        check_model(body, shown)
        choice = only_choice(body)
        values = chat_logprobs(choice)
        check_logprobs(values)
        check_budget(body, len(values), asked.limits.max_new_tokens)
        message = choice["message"]
        content = _text(message.get("content") or "")
        thoughts = message.get("reasoning") or message.get("reasoning_content")
        stopped = check_end(choice) == "stop"
        tokens = chat_tokens(choice) if asked.limits.thoughts else ()
        spoken = Spoken(content, is_apart=bool(thoughts), tokens=tokens)
        told = tell_chat(spoken, asked.limits, stopped=stopped)
        return _answer(told, content, body, values)

    return _read(reply, read, lambda error: _failed(reply, error))


def read_chosen(
    reply: HttpReply,
    tokens: Sequence[int],
    num_context: int,
    shown: Shown | None = None,
    echoed: tuple[str, ...] = ("",),
) -> Chosen:
    """Read the log-likelihood of what follows the first `num_context` of `tokens`.

    Args:
        reply: what came back.
        tokens: what was sent.
        num_context: how many of them are given.
        shown: what the server's first answers have shown.
        echoed: texts with one of which the answer must begin.

    Raises:
        EngineError: it is another model's, or an answer to another prompt.
    """

    def read(body: Mapping[str, Any]) -> Chosen:
        check_origin(body, tokens, shown)
        if not str(only_choice(body).get("text")).startswith(echoed):
            message = "the answer does not begin with its prompt"
            raise WrongReplyError(message)
        values, tops = read_through(body, len(tokens))
        here = slice(num_context, len(tokens))
        check_logprobs(values[here])
        is_greedy = all(
            v >= max(top.values()) for v, top in zip(values[here], tops[here], strict=True)
        )
        return Chosen(sum(values[here]), is_greedy)

    return _read(reply, read, lambda error: Chosen(-math.inf, is_greedy=False, error=error))


def read_through(body: Mapping[str, Any], num_sent: int) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return the log probabilities of a prompt and what was generated, and the likeliest there.

    A list that is a place too short may lack its first place or its last: none of its numbers can
    be told to belong to a token.

    Raises:
        WrongReplyError: there is not one for each token.
    """
    logprobs = only_choice(body)["logprobs"]
    values, tops = logprobs["token_logprobs"], logprobs["top_logprobs"]
    num_generated = _number(body, "completion_tokens", 1)
    if not len(values) == len(tops) == num_sent + num_generated:
        message = (
            f"{min(len(values), len(tops))} log probabilities for {num_sent} tokens that were "
            f"sent and {num_generated} generated"
        )
        raise WrongReplyError(message)
    return values, tops


def only_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the one answer in a reply.

    Raises:
        WrongReplyError: there are several, or none.
    """
    choices = body["choices"]
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        message = f"one answer was asked for, and the reply has {_size(choices)}"
        raise WrongReplyError(message)
    choice: Mapping[str, Any] = choices[0]
    return choice


def logprobs_of(choice: Mapping[str, Any]) -> Sequence[Any]:
    """Return the log probabilities of what was generated; none where there are none."""
    return (choice.get("logprobs") or {}).get("token_logprobs") or ()


def chat_logprobs(choice: Mapping[str, Any]) -> Sequence[Any]:
    """Return the same of a chat."""
    content = (choice.get("logprobs") or {}).get("content") or ()
    return [entry["logprob"] for entry in content]


def chat_tokens(choice: Mapping[str, Any]) -> Sequence[str]:
    """Return the text of each token of a chat's thoughts and answer.

    Raises:
        WrongReplyError: the server does not name them.
    """
    content = (choice.get("logprobs") or {}).get("content") or ()
    tokens = [entry.get("token") for entry in content]
    if not tokens or not all(isinstance(token, str) for token in tokens):
        message = "it does not name the tokens of its answer, so thoughts cannot be counted apart"
        raise WrongReplyError(message)
    return tokens


def named_tokens(body: Mapping[str, Any]) -> Sequence[int] | None:
    """Return the tokens of the prompt as the server names them; None where it does not."""
    found = only_choice(body).get("prompt_token_ids")
    return found if isinstance(found, list) else None


def check_origin(body: Mapping[str, Any], tokens: Sequence[int], shown: Shown | None) -> None:
    """Refuse what another model answered, or what answers another prompt.

    Raises:
        EngineError: it is so for certain.
        WrongReplyError: the reply does not show that it is not.
    """
    check_model(body, shown)
    named = named_tokens(body)
    if named is not None and list(named) != list(tokens):
        message = "the answer is to another prompt than was sent"
        if shown is None:
            raise WrongReplyError(message)
        raise _stranger(shown, message)
    if named is None and shown is not None and shown.names_tokens:
        message = "the answer does not name its prompt's tokens, and earlier ones did"
        raise WrongReplyError(message)
    must_count = shown is not None and shown.counts_tokens
    num_read = _number(body, "prompt_tokens", None if must_count else len(tokens))
    if num_read != len(tokens):
        message = f"the server read {num_read} tokens where {len(tokens)} were sent"
        raise WrongReplyError(message)


def check_model(body: Mapping[str, Any], shown: Shown | None) -> None:
    """End the run if another model answered than the one that was proven.

    Raises:
        EngineError: it did.
    """
    if shown is not None and body.get("model") != shown.model:
        raise _stranger(
            shown,
            f"an answer came from model '{body.get('model')}', and earlier ones from "
            f"'{shown.model}'",
        )


def check_logprobs(log_probabilities: Sequence[Any]) -> None:
    """Refuse a log probability that is none: NaN, infinite, missing, or above 0.

    Raises:
        WrongReplyError: one is.
    """
    for value in log_probabilities:
        if not is_finite(value):
            message = f"a log probability is {value}, not a finite number"
            raise WrongReplyError(message)
        if value > _ABOVE:
            message = f"a log probability is {value}, above 0"
            raise WrongReplyError(message)


def is_finite(value: object) -> bool:
    """Return whether a log probability is a number, and none that stands for infinity."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and value > CLAMPED


def check_budget(body: Mapping[str, Any], num_logprobs: int, most: int) -> None:
    """Refuse an answer that is longer than was asked for.

    Raises:
        WrongReplyError: it is, so the server does not heed max_tokens.
    """
    num_generated = max(_number(body, "completion_tokens", 0), num_logprobs)
    if num_generated > most:
        message = f"the answer has {num_generated} tokens where at most {most} were asked for"
        raise WrongReplyError(message)


def check_end(choice: Mapping[str, Any]) -> str:
    """Return why an answer ended.

    Raises:
        WrongReplyError: it is not said, or neither at a stop nor at the budget.
    """
    reason = choice.get("finish_reason")
    if reason not in _ENDS:
        message = f"the answer ended by '{reason}', neither 'stop' nor 'length'"
        raise WrongReplyError(message)
    return str(reason)


def _stranger(shown: Shown, what: str) -> EngineError:
    message = in_words(
        f"the server at {shown.base_url} changed while it was asked: {what}. See what stands "
        "behind the address, then type the command again."
    )
    return EngineError(message)


def _read(
    reply: HttpReply, read: Callable[[Mapping[str, Any]], T], failed: Callable[[str], T]
) -> T:
    if reply.body is None:
        return failed(reply.error or "no answer")
    try:
        return read(reply.body)
    except WrongReplyError as error:
        return failed(in_words(str(error)))
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        return failed(in_words(f"the answer cannot be read: {type(error).__name__} {error}"))


def _text(text: object) -> str:
    """Return what was generated.

    Raises:
        WrongReplyError: it is no text.
        UnicodeEncodeError: a part of it is none (half of a surrogate pair).
    """
    if not isinstance(text, str):
        message = f"the answer is of type {type(text).__name__}, no text"
        raise WrongReplyError(message)
    text.encode()
    return text


def _answer(
    told: Told, whole: str, body: Mapping[str, Any], log_probabilities: Sequence[Any]
) -> Answer:
    """Return the answer with the tokens that were generated, as the server counts them."""
    thoughts = told.num_thought_tokens
    if thoughts is None:
        details = (body.get("usage") or {}).get("completion_tokens_details")
        said = details.get("reasoning_tokens") if isinstance(details, dict) else None
        thoughts = said if isinstance(said, int) and not isinstance(said, bool) else None
    return Answer(
        told.answer,
        told.finish,
        num_tokens=_number(body, "completion_tokens", len(log_probabilities)) or None,
        num_thought_tokens=thoughts,
        whole=whole,
    )


def _failed(reply: HttpReply, error: str) -> Answer:
    """Return an answer that did not come, in time or at all."""
    return Answer("", Finish.TIMEOUT if reply.timed_out else Finish.ERROR, error)


def _number(body: Mapping[str, Any], name: str, default: int | None) -> int:
    """Return a count in the reply's usage.

    Raises:
        WrongReplyError: it is not there and must be, or is no number.
    """
    found = (body.get("usage") or {}).get(name)
    if found is None:
        found = default
    if not isinstance(found, int) or isinstance(found, bool):
        message = f"its usage says '{found}' for {name}, no number"
        raise WrongReplyError(message)
    return found


def _size(choices: object) -> object:
    return len(choices) if isinstance(choices, list) else f"a {type(choices).__name__}"
