"""What a request is in tokens, and where its answer ends: the same whatever engine answers.

The model in this process and a server are asked with the same token ids, stopped by the same
strings at the same budget, and their text is read in the same way. lm-eval has this twice, and the
two differ: its Hugging Face model lets the tokenizer put a first token (BOS) before a prompt, its
HTTP client does not; only the first passes arguments to a chat template. Here it is once, after
the first.

Reasoning: a model that thinks before it answers gets a budget for that beside the task's; how what
it generated is read is in `thoughts`.

Drawn answers have a seed each, made of the suite's, the task, the item and the repeat: whatever is
asked beside them, and in which order, the same answer is drawn again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_eval.models.utils import handle_stop_sequences, has_bos_prefix, normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedTokenizerBase

from harness.artifacts import DEFAULT_BUDGET, Suite
from harness.errors import ModelError
from harness.reading import Chat, Raised, refused_as, render_chats
from harness.score.recording import Item, Recorder

_MEND_TEMPLATE = "Mend the model's chat_template.jinja, or the suite's apply_chat_template."
_UNREAD = 2
"""Places that no token of a long text can have: one before it, one that is generated."""
THINKING_BUDGET = "thinking_budget"
"""A prepared task's own, among lm-eval's generation arguments."""

_SEED_BYTES = 4
_MOST_SEED = 2**31 - 1
"""What every server takes for a seed."""


class Drawing(NamedTuple):
    """How tokens are drawn."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: from the whole vocabulary."""


class Thoughts(NamedTuple):
    """What is thought before the answer."""

    end: str
    """What ends it."""
    budget: int
    """Tokens at most, with what ends it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Where an answer ends, and how its tokens are chosen."""

    stops: tuple[str, ...]
    """Of the answer; what is thought before it may hold them."""
    answer_budget: int
    """Tokens of the answer at most."""
    thoughts: Thoughts | None = None
    """None for a model that does not think."""
    drawing: Drawing | None = None
    """None: greedily."""

    @property
    def max_new_tokens(self) -> int:
        """Return the tokens of thoughts and answer together, which an engine is told."""
        return self.answer_budget + (self.thoughts.budget if self.thoughts else 0)

    @property
    def engine_stops(self) -> tuple[str, ...]:
        """Return the strings at which an engine may stop by itself."""
        return self.stops if self.thoughts is None else ()


class AnswerRequest(NamedTuple):
    """One request for an answer."""

    position: int
    """Among the requests that it came with."""
    item: Item
    tokens: list[int]
    limits: Limits
    cut: bool
    """Whether the prompt did not fit and lost tokens at its beginning."""
    seed: int = 0
    """With which the answer is drawn, if it is."""


def item_of(request: Any, repeat: int = 0) -> Item:  # noqa: ANN401 -- lm-eval has no types
    """Return the item that an lm-eval request belongs to."""
    return request.task_name, request.doc_id, repeat


def seed_of(seed: int, item: Item) -> int:
    """Return the seed with which an answer is drawn; the same in both arms."""
    text = "\0".join(map(str, (seed, *item)))
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:_SEED_BYTES], "big") & _MOST_SEED


def limits_of(arguments: Mapping[str, Any], suite: Suite, end: str | None) -> Limits:
    """Return where an answer ends.

    Args:
        arguments: lm-eval's generation arguments of the task, as it was prepared.
        suite: says whether the model thinks, and what ends its thoughts.
        end: text of the token that ends an answer.
    """
    settings = normalize_gen_kwargs(dict(arguments), DEFAULT_BUDGET)
    thoughts = None
    if suite.thinking and suite.think_end_token:
        budget = settings.get(THINKING_BUDGET, suite.thinking_budget)
        thoughts = Thoughts(suite.think_end_token, int(budget))
    return Limits(
        stops=tuple(s for s in handle_stop_sequences(settings["until"], eos=end) if s),
        answer_budget=settings["max_gen_toks"],
        thoughts=thoughts,
        drawing=_drawing_of(settings),
    )


def _drawing_of(settings: Mapping[str, Any]) -> Drawing | None:
    if not settings["do_sample"]:
        return None
    return Drawing(
        float(settings["temperature"]),
        float(settings.get("top_p", 1.0)),
        int(settings.get("top_k", 0)),
    )


class Encoder:
    """A tokenizer, and how a text or a chat becomes tokens with it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> None:
        self._tokenizer = tokenizer
        self._thinking = thinking
        first = tokenizer.bos_token_id
        self.prefix = int(tokenizer.eos_token_id if first is None else first)
        self._prefix_text = str(tokenizer.decode(self.prefix))
        self.end = str(tokenizer.decode(tokenizer.eos_token_id, skip_special_tokens=False))

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:  # noqa: FBT001 -- lm-eval's signature
        """Return the tokens of `text`; a first token that it already has is not doubled."""
        if add_special_tokens is None:
            add_special_tokens = not has_bos_prefix(text, self._prefix_text)
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def render(self, history: list[dict[str, str]], *, add_generation_prompt: bool = True) -> str:
        """Return a chat as the text that the model reads, without the system if it knows none.

        Raises:
            ModelError: there is no chat template, or it fails.
        """
        rendered = self._render(history, add_generation_prompt=add_generation_prompt)
        if isinstance(rendered, Raised) and rendered.is_refusal:
            plain = [message for message in history if message["role"] != "system"]
            rendered = self._render(plain, add_generation_prompt=add_generation_prompt)
        if isinstance(rendered, Raised):
            message = f"the chat template raises {rendered.kind}: {rendered.why}. {_MEND_TEMPLATE}"
            raise ModelError(message)
        return rendered

    def _render(
        self, history: list[dict[str, str]], *, add_generation_prompt: bool
    ) -> str | Raised:
        """Render as the tokenizer's apply_chat_template does, in a child process under limits."""
        options = {
            **self._tokenizer.special_tokens_map,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
            "enable_thinking": self._thinking,
        }
        with refused_as(ModelError, _MEND_TEMPLATE):
            return render_chats(self._template(), [Chat(history, options)])[0]

    def _template(self) -> str:
        try:
            return str(self._tokenizer.get_chat_template())
        except ValueError as error:
            message = "the model has no chat template, and the suite asks in chats. "
            raise ModelError(message + _MEND_TEMPLATE) from error


class Prompts(Encoder):
    """What a suite makes of a tokenizer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, suite: Suite, *, max_length: int
    ) -> None:
        super().__init__(tokenizer, thinking=suite.thinking)
        self._suite = suite
        self._max_length = max_length

    def asked(self, position: int, request: Any, repeat: int = 0) -> AnswerRequest:  # noqa: ANN401 -- lm-eval has no types
        """Return an lm-eval request for an answer, its prompt cut where it leaves no room."""
        prompt, arguments = request.args
        limits = limits_of(arguments, self._suite, self.end)
        tokens = self.encode(prompt)
        room = self._max_length - limits.max_new_tokens
        cut = len(tokens) > room
        item = item_of(request, repeat)
        seed = seed_of(self._suite.seed, item)
        return AnswerRequest(position, item, tokens[-room:], limits, cut, seed)

    def windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Return the pieces of a text whose log-likelihoods make its own: context, then piece.

        They are lm-eval's, of as many tokens as a server has room for: it must be sent a token
        before the first one, and it must generate one. lm-eval's client of servers cuts there too,
        its Hugging Face model two tokens later; texts that fit are the same for all.
        """
        pieces = get_rolling_token_windows(
            token_list=self.encode(text),
            prefix_token=self.prefix,
            max_seq_len=max(self._max_length - _UNREAD, 1),
            context_len=1,
        )
        return [make_disjoint_window(piece) for piece in pieces]


class SamePrompts:
    """Mixed into each of lm-eval's models that are asked in tokens, in front of its own methods."""

    prompts: Prompts
    recorder: Recorder
    """Of the task that is being asked."""
    repeat: int = 0
    """Which of each item's answers is being asked for."""

    @property
    def prefix_token_id(self) -> int:
        """Return the token that a continuation follows where there is no context."""
        return self.prompts.prefix

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,  # noqa: FBT001 -- lm-eval's signature
        **_: object,
    ) -> list[int]:
        """Return the tokens of `string`."""
        return self.prompts.encode(string, add_special_tokens)

    def apply_chat_template(
        self,
        chat_history: list[dict[str, str]],
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002 -- lm-eval's signature
    ) -> str:
        """Return a chat as the text that the model reads."""
        return self.prompts.render(chat_history, add_generation_prompt=add_generation_prompt)
