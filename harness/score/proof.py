"""The first questions to a server: does it answer in a way that can be scored at all?

A server may be up, list its models and answer with numbers that mean nothing: it may be another
model's, cut the prompt, ignore `echo` or `max_tokens`, hand out the answers of other prompts, or
have no log probabilities of a prompt. Any of these would end in a score. So before a suite or a
smoke set is sent, two known prompts are, in the same words, and their answers must prove what the
scores will rest on. What the proof found, `Shown`, is asked of each later answer too.

Log probabilities that are NaN or infinite are the fault of the model that a server runs: they prove
nothing against its protocol, and what they mean is for the smoke run and the gate to say.

Chats show less: their prompts are rendered by the server, so no token of them is known here.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from transformers import PreTrainedTokenizerBase

from harness.artifacts import Endpoint, digest_of
from harness.errors import EngineError, ModelError, PrerequisiteError
from harness.models import load_tokenizer
from harness.over_http import in_words
from harness.score.client import CHATS, COMPLETIONS, RETRIES, Connection, HttpReply, connect
from harness.score.replies import (
    Shown,
    WrongReplyError,
    chat_logprobs,
    chat_tokens,
    check_budget,
    check_end,
    check_logprobs,
    check_origin,
    is_finite,
    logprobs_of,
    named_tokens,
    only_choice,
    read_through,
)

T = TypeVar("T")
TEXTS = ("The quick brown fox jumps over the lazy dog.", "One and two are three, said the owl.")
"""Of different lengths, so that answers that were exchanged show it."""
_BUDGET = 16
"""Tokens of an answer at most."""
_NAMES_TOKENS = frozenset({"vllm", "sglang"})
"""Engines that know return_token_ids; others may refuse a word that they do not know."""
_ALL_TOKENS = {"trtllm": 0}
"""What `top_k` says for the whole vocabulary where it is not -1."""
_DIGITS = 3
_SAME = 1e-3
"""Log probabilities that differ by less are one, computed twice."""
_REFUSED = 400
_NO_JSON = "not JSON compliant"
"""What vLLM says of an answer with NaN in it, which it cannot send."""


class _Seen(NamedTuple):
    """What one answer showed."""

    model: str
    names_tokens: bool
    counts_tokens: bool
    has_logprobs: bool
    echoes: bool
    values: Sequence[object] | None
    """The answer and its rounded log probabilities: what tells this model from another."""


def all_tokens(endpoint: Endpoint) -> int:
    """Return what `top_k` says for the whole vocabulary."""
    return _ALL_TOKENS.get(endpoint.dialect, -1)


def words_of(endpoint: Endpoint) -> dict[str, object]:
    """Return what an answer is asked for beyond OpenAI's words: the tokens of its prompt."""
    return {"return_token_ids": True} if endpoint.dialect in _NAMES_TOKENS else {}


def prove_endpoint(endpoint: Endpoint, *, reads: bool) -> Shown:
    """Prove a server outside of any suite.

    Raises:
        EngineError: it gave no answer, or one that proves nothing, with what came back.
        PrerequisiteError: its tokenizer cannot be loaded.
    """
    with connect(endpoint, retries=RETRIES) as server:
        if endpoint.protocol == "chat":
            return prove_chats(endpoint, server)
        try:
            tokenizer = load_tokenizer(Path(endpoint.tokenizer))
        except ModelError as error:
            raise PrerequisiteError(str(error)) from error
        return prove(endpoint, server, tokenizer, reads=reads)


def prove(
    endpoint: Endpoint, server: Connection, tokenizer: PreTrainedTokenizerBase, *, reads: bool
) -> Shown:
    """Ask a server of completions two known prompts, and prove by its answers what it is.

    Args:
        endpoint: the server, by the model that is asked for.
        server: connection to it.
        tokenizer: whose tokens are sent.
        reads: whether log-likelihoods of given texts will be asked for.

    Raises:
        EngineError: it gave no answer, or one that proves nothing, with what came back.
    """
    prompts = _prompts(tokenizer, endpoint.max_model_len)
    budget = min(_BUDGET, endpoint.max_model_len - max(map(len, prompts)))
    base = {"model": endpoint.model, "temperature": 0.0, "logprobs": 1, **words_of(endpoint)}
    payloads = [{**base, "prompt": [prompt], "max_tokens": budget} for prompt in prompts]
    replies = server.send(COMPLETIONS, payloads).result()
    if any(map(_holds_nan, replies)):
        plain = [{k: v for k, v in one.items() if k != "logprobs"} for one in payloads]
        replies = server.send(COMPLETIONS, plain).result()
        reads, is_nan = False, True
    else:
        is_nan = False
    seen = [
        _proven(endpoint, reply, partial(_generated, tokens=tokens, budget=budget, is_nan=is_nan))
        for tokens, reply in zip(prompts, replies, strict=True)
    ]
    if reads:
        asked = [{**one, "max_tokens": 1, "echo": True} for one in payloads]
        seen += [
            _proven(endpoint, reply, partial(_read, tokens=tokens, tokenizer=tokenizer))
            for tokens, reply in zip(prompts, server.send(COMPLETIONS, asked).result(), strict=True)
            if not _holds_nan(reply)
        ]
    return _shown(endpoint, seen)


def prove_chats(endpoint: Endpoint, server: Connection, *, thinks: bool = False) -> Shown:
    """Do the same with a server of chats, as far as chats can show it.

    Args:
        endpoint: the server.
        server: connection to it.
        thinks: whether thoughts will have to be told from answers, token by token.

    Raises:
        EngineError: it gave no answer, or one that proves nothing, with what came back.
    """
    base = {"model": endpoint.model, "temperature": 0.0, "max_tokens": _BUDGET}
    plain = [{**base, "messages": [{"role": "user", "content": text}]} for text in TEXTS]
    replies = server.send(CHATS, [{**one, "logprobs": True} for one in plain]).result()
    if all(reply.status == _REFUSED for reply in replies):
        replies = server.send(CHATS, plain).result()
    seen = [_proven(endpoint, reply, partial(_chatted, thinks=thinks)) for reply in replies]
    _proven(endpoint, replies[0], lambda body: _check_longer(body, replies[1].body or {}))
    return _shown(endpoint, seen)


def _prompts(tokenizer: PreTrainedTokenizerBase, room: int) -> list[list[int]]:
    """Return the texts' tokens, different ones of different numbers, as far as there is room."""
    longest = max(room - _BUDGET, room // 2, 1)
    found = [list(tokenizer.encode(text, add_special_tokens=False)) for text in TEXTS]
    first, second = (tokens[:longest] for tokens in found)
    if len(first) == len(second) > 1:
        second = second[:-1]
    return [first, second]


def _holds_nan(reply: HttpReply) -> bool:
    return reply.body is None and _NO_JSON in str(reply.error)


def _proven(endpoint: Endpoint, reply: HttpReply, look: Callable[[Mapping[str, Any]], T]) -> T:
    try:
        if reply.body is not None:
            _check_name(reply.body, endpoint)
            return look(reply.body)
        what = reply.error or "no answer came"
    except WrongReplyError as error:
        what = str(error)
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        what = f"the answer cannot be read: {type(error).__name__} {error}"
    message = (
        f"the server at {endpoint.base_url} does not prove that its answers can be scored: "
        f"{in_words(what)}. Nothing was scored. See what answers at this address for model "
        f"'{endpoint.model}'."
    )
    raise EngineError(message)


def _check_name(body: Mapping[str, Any], endpoint: Endpoint) -> None:
    """Refuse an answer of another model; one that goes by several names may use any of them."""
    found = body.get("model")
    if found not in {endpoint.model, *endpoint.also_called}:
        message = f"model '{endpoint.model}' was asked, and '{found}' answered"
        raise WrongReplyError(message)


def _generated(body: Mapping[str, Any], *, tokens: list[int], budget: int, is_nan: bool) -> _Seen:
    """Look at an answer to a known prompt."""
    choice = only_choice(body)
    names_tokens, counts_tokens = _check_prompt(body, tokens)
    reason = check_end(choice)
    values = logprobs_of(choice)
    if not values and not is_nan:
        message = "its answer has no log probabilities, without which NaN cannot be seen"
        raise WrongReplyError(message)
    check_logprobs([value for value in values if is_finite(value)])
    check_budget(body, len(values), budget)
    if reason == "length" and len(values) < budget and not is_nan:
        message = f"its answer ended by 'length' after {len(values)} of {budget} tokens"
        raise WrongReplyError(message)
    return _Seen(
        model=str(body["model"]),
        names_tokens=names_tokens,
        counts_tokens=counts_tokens,
        has_logprobs=True,
        echoes=False,
        values=[_text(choice["text"]), *_rounded(values)] if not is_nan else None,
    )


def _rounded(values: Sequence[Any]) -> list[object]:
    """Return what is the same each time that the same model answers the same."""
    return [round(value, _DIGITS) if is_finite(value) else "not finite" for value in values]


def _read(
    body: Mapping[str, Any], *, tokens: list[int], tokenizer: PreTrainedTokenizerBase
) -> _Seen:
    """Look at the log probabilities of a known prompt."""
    choice = only_choice(body)
    names_tokens, counts_tokens = _check_prompt(body, tokens)
    check_end(choice)
    values, tops = read_through(body, len(tokens))
    for value, top in zip(values[1:], tops[1:], strict=True):
        if not all(map(is_finite, (value, *top.values()))):
            continue
        check_logprobs([value, *top.values()])
        if max(top.values()) < value - _SAME:
            message = f"a token is likelier ({value}) than the likeliest ({max(top.values())})"
            raise WrongReplyError(message)
    spelled = tokenizer.decode(tokens, skip_special_tokens=True)
    echoes = _text(choice["text"]).startswith(str(spelled))
    if not names_tokens and not echoes:
        message = f"the prompt did not come back: its answer begins '{choice['text'][:40]}'"
        raise WrongReplyError(message)
    return _Seen(
        model=str(body["model"]),
        names_tokens=names_tokens,
        counts_tokens=counts_tokens,
        has_logprobs=True,
        echoes=echoes,
        values=_rounded(values[1:]),
    )


def _check_prompt(body: Mapping[str, Any], tokens: Sequence[int]) -> tuple[bool, bool]:
    """Prove that the tokens that were read are those that were sent.

    Returns:
        Whether they are named, and whether they are counted.

    Raises:
        WrongReplyError: they are others, or nothing shows which they are.
    """
    check_origin(body, tokens, None)
    is_named = named_tokens(body) is not None
    is_counted = (body.get("usage") or {}).get("prompt_tokens") is not None
    if not is_named and not is_counted:
        message = "nothing in its answer shows how many tokens of the prompt it read"
        raise WrongReplyError(message)
    return is_named, is_counted


def _chatted(body: Mapping[str, Any], *, thinks: bool) -> _Seen:
    """Look at an answer to a chat."""
    choice = only_choice(body)
    check_end(choice)
    values = chat_logprobs(choice)
    check_logprobs([value for value in values if is_finite(value)])
    check_budget(body, len(values), _BUDGET)
    if thinks:
        chat_tokens(choice)
    num_generated = (body.get("usage") or {}).get("completion_tokens")
    if not values and num_generated is None:
        message = "nothing in its answer shows that it heeds max_tokens"
        raise WrongReplyError(message)
    message = choice["message"]
    return _Seen(
        model=str(body["model"]),
        names_tokens=False,
        counts_tokens=(body.get("usage") or {}).get("prompt_tokens") is not None,
        has_logprobs=bool(values),
        echoes=False,
        values=[_text(message.get("content") or ""), *_rounded(values)],
    )


def _check_longer(first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Refuse answers whose prompts are not the ones that were sent, by their lengths."""
    longer, shorter = ((one.get("usage") or {}).get("prompt_tokens") for one in (first, second))
    if longer is not None and shorter is not None and not longer > shorter:
        message = f"it read {longer} tokens of the longer prompt and {shorter} of the shorter one"
        raise WrongReplyError(message)


def _text(found: object) -> str:
    if not isinstance(found, str):
        message = f"the answer is of type {type(found).__name__}, no text"
        raise WrongReplyError(message)
    return found


def _shown(endpoint: Endpoint, seen: Sequence[_Seen]) -> Shown:
    has_logprobs = all(one.has_logprobs for one in seen)
    is_told = has_logprobs and all(one.values is not None for one in seen)
    return Shown(
        base_url=endpoint.base_url,
        model=seen[0].model,
        names_tokens=all(one.names_tokens for one in seen),
        counts_tokens=all(one.counts_tokens for one in seen),
        has_logprobs=has_logprobs,
        echoes=any(one.echoes for one in seen),
        fingerprint=digest_of(*(one.values for one in seen)) if is_told else None,
    )
