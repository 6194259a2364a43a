"""Chat templates: found where tokenizers keep them, rendered in transformers' sandbox, in a child.

Two templates may differ in spelling and mean the same, or differ in a space that changes every
answer. So conversations are rendered with both and the texts are compared.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import ModelError, UnreadableError
from harness.reading import Chat, Raised, read_json_object, read_utf8, render_chats

_Messages = list[dict[str, object]]
_CONVERSATIONS: tuple[tuple[str, _Messages], ...] = (
    ("a question", [{"role": "user", "content": "What is 17 + 4?"}]),
    (
        "a system prompt",
        [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "Hello\n"}],
    ),
    (
        "several turns",
        [
            {"role": "user", "content": "Name a colour."},
            {"role": "assistant", "content": "<think>\nAny.\n</think>\n\nBlue."},
            {"role": "user", "content": "Another one."},
        ],
    ),
)
_OPTIONS: tuple[Mapping[str, object], ...] = (
    {"add_generation_prompt": True},
    {"add_generation_prompt": False},
    {"add_generation_prompt": True, "enable_thinking": False},
    {
        "add_generation_prompt": True,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "add",
                    "description": "Add two numbers.",
                    "parameters": {"type": "object", "properties": {"a": {"type": "number"}}},
                },
            }
        ],
    },
)
_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_SHOWN = 40
LEGACY_FILE = "chat_template.json"


def has_template(folder: Path) -> bool:
    """Return whether a folder's tokenizer has a chat template, be it one that cannot be read."""
    try:
        return _read_template(folder) is not None
    except UnreadableError:
        return True


def template_problem(folder: Path) -> str | None:
    """Return why the chat template of a folder cannot be used; None where it can, or is none."""
    try:
        template = _read_template(folder)
        rendered = _render(folder, template) if template is not None else []
    except UnreadableError as error:
        return str(error).removesuffix(".")
    raised = [one for one in rendered if isinstance(one, Raised)]
    # Templates may refuse a system prompt or tools; one that refuses all conversations is broken,
    # and what is no refusal is a fault of the template.
    faults = raised if len(raised) == len(rendered) else [r for r in raised if not r.is_refusal]
    if not faults:
        return None
    return f"the chat template raises {faults[0].kind}: {faults[0].why}"


def check_template(suite: str, folder: Path) -> None:
    """Refuse a model that cannot be asked in chats, as the suite of this name asks.

    Raises:
        ModelError: it has no chat template, or one that fails.
    """
    problem = template_problem(folder) if has_template(folder) else "it has no chat template"
    if problem is not None:
        message = (
            f"suite '{suite}' asks chats, and '{folder}' cannot be asked so: {problem}. Copy the "
            "model's chat_template.jinja there, or choose a suite without chats."
        )
        raise ModelError(message)


def first_difference(source: Path, stored: Path) -> str | None:
    """Return how the templates of two folders differ first; None where they mean the same."""
    try:
        theirs, mine = _read_template(source), _read_template(stored)
        if theirs is None or mine is None:
            if theirs is not None:
                return "the source has a chat template and the checkpoint has none"
            return "the checkpoint has a chat template and the source has none" if mine else None
        texts = zip(_render(stored, mine), _render(source, theirs), strict=True)
    except UnreadableError as error:
        return str(error).removesuffix(".")
    for (name, _), pair in zip(_asked(), texts, strict=True):
        is_text, was_text = map(_text, pair)
        if is_text != was_text:
            return f"{name} becomes {_around(is_text, was_text)}"
    return None


def _around(mine: str, theirs: str) -> str:
    """Return both texts where they part."""
    shorter = min(len(mine), len(theirs))
    start = next((i for i in range(shorter) if mine[i] != theirs[i]), shorter)
    begin = max(start - _SHOWN // 2, 0)
    return f"{mine[begin : begin + _SHOWN]!r} and was {theirs[begin : begin + _SHOWN]!r}"


def _asked() -> Sequence[tuple[str, Chat]]:
    """Return every conversation with every option, and what it is called."""
    today = datetime.now(UTC).strftime("%d %b %Y")
    return [
        (name, Chat(messages, {**options, "date_string": today}))
        for name, messages in _CONVERSATIONS
        for options in _OPTIONS
    ]


def _render(folder: Path, template: str) -> Sequence[str | Raised]:
    """Return the texts of all conversations with the special tokens of a folder."""
    tokens = _special_tokens(folder)
    chats = [Chat(chat.messages, {**tokens, **chat.options}) for _, chat in _asked()]
    return render_chats(template, chats)


def _text(rendered: str | Raised) -> str:
    """Return the text, or why there is none: a template may refuse a conversation."""
    if isinstance(rendered, str):
        return rendered
    return f"no text, but {rendered.kind}: {rendered.why}"


def _read_template(folder: Path) -> str | None:
    """Return the default chat template, from whichever place tokenizers read it.

    Raises:
        UnreadableError: the file that would have it cannot be read.
    """
    file = folder / "chat_template.jinja"
    if os.path.lexists(file):
        return read_utf8(file)
    for name in (LEGACY_FILE, "tokenizer_config.json"):
        found = _read(folder / name).get("chat_template")
        if isinstance(found, list):
            if not all(isinstance(t, dict) and {"name", "template"} <= t.keys() for t in found):
                raise UnreadableError(folder / name, "has templates without a name")
            found = {str(one["name"]): one["template"] for one in found}.get("default")
        if isinstance(found, str):
            return found
        if found is not None:
            raise UnreadableError(folder / name, "has a chat_template that is no text")
    return None


def template_places(folder: Path) -> Mapping[str, object]:
    """Return what each file that may hold a chat template has as one, as far as it can be read.

    The first is the one that tokenizers take; the last is read by processors of images alone.
    """
    places: dict[str, object] = {}
    with suppress(UnreadableError):
        if (folder / "chat_template.jinja").is_file():
            places["chat_template.jinja"] = read_utf8(folder / "chat_template.jinja")
    for name in ("tokenizer_config.json", LEGACY_FILE):
        with suppress(UnreadableError):
            places[name] = _read(folder / name).get("chat_template")
    return {name: found for name, found in places.items() if found is not None}


def means_two_things(folder: Path) -> bool:
    """Return whether the files that tokenizers take a chat template from hold two that differ."""
    texts = [t for name, t in template_places(folder).items() if name != LEGACY_FILE]
    if len(texts) < 2 or not all(isinstance(text, str) for text in texts):  # noqa: PLR2004  of two files
        return False
    with suppress(UnreadableError):
        rendered = [list(map(_text, _render(folder, str(text)))) for text in texts]
        return rendered[0] != rendered[1]
    return False


def _special_tokens(folder: Path) -> Mapping[str, object]:
    """Return the tokens that templates may print."""
    config = _read(folder / "tokenizer_config.json")
    tokens = {}
    for name in _TOKENS:
        value = config.get(name)
        tokens[name] = value.get("content") if isinstance(value, dict) else value
    return {name: value for name, value in tokens.items() if value is not None}


def _read(path: Path) -> Mapping[str, object]:
    return read_json_object(path) if os.path.lexists(path) else {}
