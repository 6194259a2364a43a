"""The smoke set, put to a server: vLLM's completions, or any server's chats.

Log probabilities of a given text come from vLLM's `prompt_logprobs`, by token id. It clamps minus
infinity, and fails where a log probability is NaN; the first is read as not finite, the second is
a failed reading.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from harness.artifacts import Ask, Endpoint, Reading, SmokeSet
from harness.errors import ModelError, PrerequisiteError
from harness.models import load_tokenizer
from harness.over_http import in_words
from harness.score.asking import AnswerRequest, Limits
from harness.score.client import CHATS, COMPLETIONS, Connection, HttpReply
from harness.score.probe_prompts import SmokePrompts
from harness.score.proof import all_tokens, prove, prove_chats, words_of
from harness.score.replies import CLAMPED, Answer, Shown, read_answer, read_chat

_DIGITS = 5
_GENERATE = "/generate"
"""SGLang's own; its completions give log probabilities of an answer only beside the prompt's."""
_PLAIN = {"top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
"""A server's defaults come from the model's generation_config.json; none of them is wanted."""
_WITHOUT_READINGS = frozenset({"trtllm"})
"""Engines whose servers have no log probabilities of a prompt, and refuse to be asked."""
_Passage = tuple[str, list[int]]
"""Its name and its tokens."""
_Look = Callable[[str, list[int], Mapping[str, Any]], Reading]
"""Reads one answer."""


class ServerProbed:
    """A server that is asked in tokens."""

    path = COMPLETIONS

    def __init__(self, endpoint: Endpoint, connection: Connection, prompts: SmokeSet) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._prompts = prompts
        length = min(prompts.max_model_len, endpoint.max_model_len)
        self._tokenizer = _tokenizer(endpoint.tokenizer)
        self._tokens = SmokePrompts(self._tokenizer, prompts, max_length=length)
        self._shown: Shown | None = None

    def prove(self) -> None:
        """Prove by two known prompts that the server's answers can be compared.

        Raises:
            EngineError: they cannot, with what came back.
        """
        self._shown = prove(self._endpoint, self._connection, self._tokenizer, reads=False)

    def read(self) -> Callable[[], tuple[Reading, ...]]:
        """Ask for the log probabilities of the set's passages, where the server has them."""
        if self._endpoint.dialect in _WITHOUT_READINGS:
            return tuple
        passages = [(one.id, self._tokens.passage(one.text)) for one in self._prompts.passages]
        if self._endpoint.dialect == "sglang":
            return self._read_natively(passages)
        wanted = {"max_tokens": 1, "temperature": 0.0, "prompt_logprobs": self._prompts.top_k}
        replies = self._send([{"prompt": [tokens], **wanted} for _, tokens in passages])
        return partial(_readings, passages, replies, _reading)

    def _read_natively(self, passages: Sequence[_Passage]) -> Callable[[], tuple[Reading, ...]]:
        """Ask SGLang for the same, whose completions have no log probabilities of others."""
        wanted = {
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": 0,
            "top_logprobs_num": self._prompts.top_k,
        }
        payloads = [{"input_ids": tokens, **wanted} for _, tokens in passages]
        replies = self._connection.send(_GENERATE, payloads)
        return partial(_readings, passages, replies, _reading_natively)

    def answer(self, asks: Sequence[Ask], *, seed: int | None) -> Callable[[], list[Answer]]:
        """Send the prompts, all of them at once."""
        asked = [self._asked(ask) for ask in asks]
        settings = _drawn(seed, self._endpoint) | _PLAIN
        settings["top_k"] = all_tokens(self._endpoint)
        replies = self._send(
            [
                {
                    **self._prompt(ask, one),
                    "stop": list(one.limits.engine_stops),
                    "max_tokens": one.limits.max_new_tokens,
                    **settings,
                }
                for ask, one in zip(asks, asked, strict=True)
            ]
        )

        def wait() -> list[Answer]:
            pairs = zip(replies.result(), asked, strict=True)
            return [self._answer(reply, one) for reply, one in pairs]

        return wait

    def _send(self, payloads: Sequence[Mapping[str, Any]]) -> Future[list[HttpReply]]:
        named = [{"model": self._endpoint.model, **payload} for payload in payloads]
        return self._connection.send(self.path, named)

    def _asked(self, ask: Ask) -> AnswerRequest:
        return self._tokens.asked(ask)

    def _prompt(self, ask: Ask, asked: AnswerRequest) -> Mapping[str, Any]:
        del ask
        return {"prompt": [asked.tokens], "logprobs": 1, **words_of(self._endpoint)}

    def _answer(self, reply: HttpReply, asked: AnswerRequest) -> Answer:
        return read_answer(reply, asked, self._shown)


class ChatProbed(ServerProbed):
    """A server that has nothing but chats: it gives no log probabilities of a given text."""

    path = CHATS

    def __init__(self, endpoint: Endpoint, connection: Connection, prompts: SmokeSet) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._prompts = prompts
        self._shown = None

    def prove(self) -> None:
        """Prove by two known chats what chats can show.

        Raises:
            EngineError: the server's answers cannot be compared, with what came back.
        """
        self._shown = prove_chats(self._endpoint, self._connection)

    def read(self) -> Callable[[], tuple[Reading, ...]]:
        """Ask for nothing."""
        return tuple

    def _asked(self, ask: Ask) -> AnswerRequest:
        limits = Limits(stops=ask.stops, answer_budget=ask.max_tokens)
        return AnswerRequest(0, ("smoke", 0, 0), [], limits, cut=False)

    def _prompt(self, ask: Ask, asked: AnswerRequest) -> Mapping[str, Any]:
        del asked
        messages = [{"role": "user", "content": ask.prompt}]
        return {"messages": messages, "chat_template_kwargs": {"enable_thinking": False}}

    def _answer(self, reply: HttpReply, asked: AnswerRequest) -> Answer:
        return read_chat(reply, asked, self._shown)


def _drawn(seed: int | None, endpoint: Endpoint) -> dict[str, Any]:
    """Return how tokens are chosen.

    vLLM's CPU build dies of a seeded request whose prompt it reads in parts ("CPU Generator does
    not use offset"), so there the draws are the server's own; answers are compared as populations.
    Somebody else's server may be one: it is not known on what it runs.
    """
    if seed is None:
        return {"temperature": 0.0}
    deployment = endpoint.deployment
    may_be_cpu = bool(deployment.address) or deployment.device.startswith("cpu")
    return {"temperature": 1.0} | ({} if may_be_cpu else {"seed": seed})


def _tokenizer(folder: str) -> Any:  # noqa: ANN401 -- transformers leaves it untyped
    try:
        return load_tokenizer(Path(folder))
    except ModelError as error:
        raise PrerequisiteError(str(error)) from error


def _readings(
    passages: Sequence[_Passage], replies: Future[list[HttpReply]], look: _Look
) -> tuple[Reading, ...]:
    """Wait for the replies to passages, and read them."""
    pairs = zip(passages, replies.result(), strict=True)
    return tuple(_read(name, tokens, reply, look) for (name, tokens), reply in pairs)


def _read(name: str, tokens: list[int], reply: HttpReply, look: _Look) -> Reading:
    error = reply.error or "no answer"
    if reply.body is not None:
        try:
            return look(name, tokens, reply.body)
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as cause:
            error = in_words(
                f"the log probabilities cannot be read: {type(cause).__name__} {cause}"
            )
    return Reading(passage=name, tokens=tuple(tokens), logprobs=(), top=(), error=error)


def _reading(name: str, tokens: list[int], body: Mapping[str, Any]) -> Reading:
    """Read one place a token; nothing is known of the first.

    Raises:
        LookupError: a place lacks its own token.
        TypeError: a place holds no table.
        ValueError: there are not as many places as tokens.
    """
    top = [
        {int(token): float(entry["logprob"]) for token, entry in place.items()}
        for place in body["choices"][0]["prompt_logprobs"][1:]
    ]
    values = [place[token] for place, token in zip(top, tokens[1:], strict=True)]
    return _whole(name, tokens, values, top)


def _reading_natively(name: str, tokens: list[int], body: Mapping[str, Any]) -> Reading:
    """Read SGLang's places: `[logprob, token, text]` each, one a token, nothing of the first.

    JSON has no infinity, so SGLang writes null for it.

    Raises:
        LookupError: an answer lacks its places.
        TypeError: a place is none.
        ValueError: there are not as many places as tokens, or they are of other tokens.
    """
    given, tops = body["meta_info"]["input_token_logprobs"], body["meta_info"]["input_top_logprobs"]
    named = [int(place[1]) for place in given]
    if named != list(tokens):
        message = f"{len(named)} places of a prompt of {len(tokens)} tokens, or of other tokens"
        raise ValueError(message)
    values = [_finite_or_less(place[0]) for place in given[1:]]
    top = [
        {int(place[1]): _finite_or_less(place[0]) for place in places}
        for _, places in zip(values, tops[1:], strict=True)
    ]
    return _whole(name, tokens, values, top)


def _finite_or_less(value: object) -> float:
    if value is None:
        return -math.inf
    return float(value)  # type: ignore[arg-type]  # what is no number raises


def _whole(
    name: str, tokens: list[int], values: Sequence[float], top: Sequence[Mapping[int, float]]
) -> Reading:
    return Reading(
        passage=name,
        tokens=tuple(tokens),
        logprobs=tuple(round(v, _DIGITS) if _is_finite(v) else None for v in values),
        top=tuple(
            {t: round(v, _DIGITS) for t, v in place.items() if _is_finite(v)} for place in top
        ),
    )


def _is_finite(value: float) -> bool:
    return math.isfinite(value) and value > CLAMPED
