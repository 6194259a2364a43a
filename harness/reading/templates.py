"""Chat templates, which are programs: rendered in a child process under limits of work and memory.

The child uses transformers' own sandbox, as the engines do, so that a text is the same.
"""

import atexit
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from harness.errors import UnreadableError
from harness.reading import bounds
from harness.reading.limited import LimitedChild, TooMuchWorkError

_TOO_MUCH = {
    "memory": "more memory than there is",
    "characters": f"more than {bounds.RENDERED_CHARACTERS} characters for its text",
}


class Chat(NamedTuple):
    """One conversation to be rendered."""

    messages: Sequence[Mapping[str, object]]
    options: Mapping[str, object]
    """Such as `add_generation_prompt`, `tools` and the tokenizer's special tokens."""


class Raised(NamedTuple):
    """What a template raised instead of giving a text."""

    kind: str
    """Class of the exception."""
    why: str
    is_refusal: bool
    """Whether it is one of Jinja's, such as that of `raise_exception`."""


def render_chats(template: str, chats: Sequence[Chat]) -> list[str | Raised]:
    """Return the text of each conversation, or what the template raised for it.

    Raises:
        UnreadableError: the template needs more work, memory or text than its bound.
    """
    where = "the chat template"
    if len(template) > bounds.TEXT_BYTES:
        raise UnreadableError(where, f"has more than {bounds.TEXT_BYTES} characters")
    asked = [[list(chat.messages), dict(chat.options)] for chat in chats]
    try:
        answers = _child().ask(template=template, chats=asked)
    except TooMuchWorkError as error:
        raise UnreadableError(where, f"needs {error} for a short conversation") from error
    if isinstance(answers, str):
        raise UnreadableError(where, f"needs {_TOO_MUCH[answers]} for a short conversation")
    return [one if isinstance(one, str) else Raised(*one) for one in answers]


@cache
def _child() -> LimitedChild:
    """Return the one child of this process that renders."""
    child = LimitedChild("render", cpu_s=bounds.RENDER_CPU_S)
    atexit.register(child.end)
    return child
