"""A server behind lm-eval, registered as `harness-completions` and `harness-chat`.

They are lm-eval's own `local-completions` and `local-chat-completions`, whose payloads they send,
with three differences. A request that fails for good is noted as failed, where lm-eval's clients
end the run. Why an answer ended is read. And a prompt is sent as the very tokens that the model in
this process would get, chats rendered here, so that both engines answer the same question.

lm-eval prepares a task, asks, and makes scores of the answers, one after the other, while a server
could already answer the next task. So requests can be sent before lm-eval asks for them, and there
is a moment, while replies are waited for, to prepare the next task.

A server hides what is not finite: vLLM clamps minus infinity, and generates on from NaN as if
nothing were wrong. So log probabilities are asked for with every answer, and checked.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lm_eval.api.registry import register_model
from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

from harness.artifacts import Endpoint, Suite
from harness.errors import ModelError, PrerequisiteError
from harness.models import load_tokenizer
from harness.score.asking import (
    AnswerRequest,
    Limits,
    Prompts,
    SamePrompts,
    item_of,
    limits_of,
    seed_of,
)
from harness.score.client import CHATS, COMPLETIONS, HttpReply
from harness.score.proof import all_tokens, prove, prove_chats, words_of
from harness.score.recording import Finish, Item, log_progress
from harness.score.replies import Answer, Chosen, read_answer, read_chat, read_chosen
from harness.score.sending import SendsAhead, Sent

_GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0}
"""Greedy and nothing else; a server's defaults come from the model's generation_config.json."""
_BROKEN = "\N{REPLACEMENT CHARACTER}"


class _Pair(NamedTuple):
    """One request for a log-likelihood, in tokens: of a whole text, or of a piece of it."""

    request: int
    """Which of lm-eval's it belongs to."""
    item: Item
    tokens: list[int]
    num_context: int
    """Tokens of the beginning, which is given."""
    cut: bool


@register_model("harness-completions")
class CompletionsLM(SendsAhead, SamePrompts, LocalCompletionsAPI):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's requests with a server, token by token the same prompts."""

    def __init__(self, endpoint: Endpoint, suite: Suite) -> None:
        try:
            load_tokenizer(Path(endpoint.tokenizer))  # lm-eval loads its own, and says less
        except ModelError as error:
            message = f"{error} 'harness score URL --tokenizer FOLDER' names another folder."
            raise PrerequisiteError(message) from error
        super().__init__(
            endpoint,
            suite,
            base_url=f"{endpoint.base_url}{COMPLETIONS}",
            tokenizer_backend="huggingface",
            tokenizer=endpoint.tokenizer,
        )
        # A prompt whose log-likelihood is asked needs room for the one token that must follow.
        self._longest_read = min(suite.max_model_len + 1, endpoint.max_model_len - 1)
        length = min(suite.max_model_len, endpoint.max_model_len)
        self.prompts = Prompts(self.tokenizer, suite, max_length=length)

    def prove(self, *, reads: bool) -> None:
        """Prove by two known prompts that the server's answers can be scored.

        Raises:
            EngineError: they cannot, with what came back.
        """
        self.shown = prove(self.endpoint, self._connection, self.tokenizer, reads=reads)

    def generate_until(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002 -- lm-eval's signature
    ) -> list[str]:
        """Answer `requests`."""
        read = partial(read_answer, tokenizer=self.tokenizer)
        return self._note_answers("generate_until", requests, read)

    def loglikelihood(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002 -- lm-eval's signature
    ) -> list[tuple[float, bool]]:
        """Return the log-likelihood of each continuation, and whether it is the greedy one."""
        results: list[tuple[float, bool]] = []
        for pair, reply in zip(*self._take("loglikelihood", requests), strict=True):
            chosen = self._read(pair, reply)
            results.append((chosen.log_likelihood, chosen.is_greedy))
        return results

    def _num_tokens(self, answer: Answer) -> int:
        """Return the same, counted here where the server does not say it."""
        said = super()._num_tokens(answer)
        if said is not None:
            return said
        spelled = self.tokenizer.encode(answer.whole, add_special_tokens=False)
        return len(spelled) + (answer.finish is Finish.STOP)

    def loglikelihood_rolling(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002 -- lm-eval's signature
    ) -> list[float]:
        """Return the log-likelihood of each text, whose pieces were sent one by one."""
        pairs, replies = self._take("loglikelihood_rolling", requests)
        parts: dict[int, list[float]] = {index: [] for index in range(len(requests))}
        for pair, reply in zip(pairs, replies, strict=True):
            parts[pair.request].append(self._read(pair, reply).log_likelihood)
        for request, read in zip(requests, parts.values(), strict=True):
            if not read:  # a text without a token says nothing, and is nobody's failure
                self.recorder.note(item_of(request), Finish.SCORED)
        return [sum(read) for read in parts.values()]

    def _read(self, pair: _Pair, reply: HttpReply) -> Chosen:
        """Read what was asked of a pair, and note how it ended."""
        echoed = self._echoed(pair.tokens)
        chosen = read_chosen(reply, pair.tokens, pair.num_context, self.shown, echoed)
        finish = Finish.ERROR if chosen.error else Finish.SCORED
        self.recorder.note(pair.item, finish, prompt_cut=pair.cut, error=chosen.error)
        return chosen

    def _echoed(self, tokens: Sequence[int]) -> tuple[str, ...]:
        """Return how an answer may begin, where nothing but its text tells whose prompt it has.

        Tokens may end within a letter, which is spelled in more than one way; of special tokens
        some servers leave out the text.
        """
        if self.shown is None or self.shown.names_tokens or not self.shown.echoes:
            return ("",)
        spelled = (
            str(self.tokenizer.decode(tokens, skip_special_tokens=skips)) for skips in (True, False)
        )
        return tuple(text.partition(_BROKEN)[0] for text in spelled)

    def _send(self, kind: str, requests: Sequence[Any], repeat: int) -> Sent:
        if kind == "loglikelihood":
            return self._send_pairs(requests, self._pairs(requests, repeat))
        if kind == "loglikelihood_rolling":
            return self._send_pairs(requests, self._pieces(requests, repeat))
        asked = [self.prompts.asked(i, request, repeat) for i, request in enumerate(requests)]
        payloads = [
            self._chosen(
                one,
                self._create_payload(
                    [one.tokens],
                    generate=True,
                    gen_kwargs=_arguments(one.limits, self.endpoint)
                    | {"logprobs": 1, "skip_special_tokens": one.limits.thoughts is None}
                    | words_of(self.endpoint),
                    seed=self._seed,
                ),
            )
            for one in asked
        ]
        return Sent(
            requests, asked, self._connection.send(COMPLETIONS, payloads, on_reply=_say(asked))
        )

    def _pairs(self, requests: Sequence[Any], repeat: int) -> list[_Pair]:
        # lm-eval splits the pairs into tokens and hands them to _loglikelihood_tokens.
        in_tokens = super().loglikelihood(requests, disable_tqdm=True)
        pairs: list[_Pair] = []
        split = enumerate(zip(requests, in_tokens, strict=True))
        for index, (request, (_, context, continuation)) in split:
            tokens = (context + continuation)[-self._longest_read :]
            num_context = max(len(tokens) - len(continuation), 1)
            cut = len(tokens) < len(context) + len(continuation)
            pairs.append(_Pair(index, item_of(request, repeat), tokens, num_context, cut))
        return pairs

    def _pieces(self, requests: Sequence[Any], repeat: int) -> list[_Pair]:
        return [
            _Pair(index, item_of(request, repeat), context + piece, len(context), cut=False)
            for index, request in enumerate(requests)
            for context, piece in self.prompts.windows(request.args[0])
        ]

    def _send_pairs(self, requests: Sequence[Any], pairs: list[_Pair]) -> Sent:
        payloads = [
            self._create_payload([pair.tokens], generate=False, seed=self._seed)
            | words_of(self.endpoint)
            for pair in pairs
        ]
        replies = self._connection.send(COMPLETIONS, payloads, on_reply=_say(pairs))
        return Sent(requests, pairs, replies)

    def _loglikelihood_tokens(self, requests: list[Any], **_: object) -> list[Any]:
        return requests


@register_model("harness-chat")
class ChatLM(SendsAhead, LocalChatCompletion):  # type: ignore[misc]  # lm-eval has no types
    """Answers lm-eval's requests with a server that renders chats itself."""

    def __init__(self, endpoint: Endpoint, suite: Suite) -> None:
        super().__init__(endpoint, suite, base_url=f"{endpoint.base_url}{CHATS}")

    def prove(self, *, reads: bool) -> None:
        """Prove by two known chats what chats can show.

        Raises:
            EngineError: the server's answers cannot be scored, with what came back.
        """
        del reads
        thinks = self._suite.thinking
        self.shown = prove_chats(self.endpoint, self._connection, thinks=thinks)

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: ARG002, FBT001, FBT002 -- lm-eval's signature
    ) -> str:
        """Return a chat as JSON: the server renders it."""
        return json.dumps(chat_history, ensure_ascii=False)

    def generate_until(
        self,
        requests: list[Any],
        disable_tqdm: bool = False,  # noqa: ARG002, FBT001, FBT002 -- lm-eval's signature
    ) -> list[str]:
        """Answer `requests`."""
        return self._note_answers("generate_until", requests, read_chat)

    def _send(self, kind: str, requests: Sequence[Any], repeat: int) -> Sent:
        del kind
        asked = [self._asked(position, one, repeat) for position, one in enumerate(requests)]
        words: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": self._suite.thinking}}
        if self.shown is not None and self.shown.has_logprobs:
            words["logprobs"] = True
        payloads = [
            self._chosen(
                one,
                self._create_payload(
                    json.loads(request.args[0]),
                    generate=True,
                    gen_kwargs=_arguments(one.limits, self.endpoint) | words,
                    seed=self._seed,
                ),
            )
            for request, one in zip(requests, asked, strict=True)
        ]
        return Sent(requests, asked, self._connection.send(CHATS, payloads, on_reply=_say(asked)))

    def _asked(self, position: int, request: Any, repeat: int) -> AnswerRequest:  # noqa: ANN401 -- lm-eval has no types
        limits = limits_of(request.args[1], self._suite, None)
        item = item_of(request, repeat)
        seed = seed_of(self._suite.seed, item)
        return AnswerRequest(position, item, [], limits, cut=False, seed=seed)


def _arguments(limits: Limits, endpoint: Endpoint) -> dict[str, Any]:
    """Return what lm-eval's clients make a payload of."""
    chosen: dict[str, Any] = dict(_GREEDY)
    if limits.drawing is not None:
        chosen |= limits.drawing._asdict()
        chosen["top_k"] = limits.drawing.top_k or all_tokens(endpoint)
        chosen["min_p"] = 0.0
    stops = list(limits.engine_stops)
    return {"until": stops, "max_gen_toks": limits.max_new_tokens, **chosen}


def _say(asked: Sequence[AnswerRequest] | Sequence[_Pair]) -> Callable[[int], None]:
    """Return what logs how many of a task's requests are answered."""
    task = asked[0].item[0] if asked else ""
    return lambda num_done: log_progress(task, num_done, len(asked))
