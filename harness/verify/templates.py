"""Chat templates: found where tokenizers keep them, rendered in transformers' sandbox.

Two templates may differ in spelling and mean the same, or differ in a space that changes every
answer. So conversations are rendered with both and the texts are compared.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

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


def has_template(folder: Path) -> bool:
    """Return whether a folder's tokenizer has a chat template."""
    return _read_template(folder) is not None


def first_difference(source: Path, stored: Path) -> str | None:
    """Return how the templates of two folders differ first; None where they mean the same."""
    theirs, mine = _read_template(source), _read_template(stored)
    if theirs is None or mine is None:
        if theirs is not None:
            return "the source has a chat template and the checkpoint has none"
        return "the checkpoint has a chat template and the source has none" if mine else None
    tokens = _special_tokens(source), _special_tokens(stored)
    for name, messages in _CONVERSATIONS:
        for options in _OPTIONS:
            texts = (
                _render(theirs, messages, {**tokens[0], **options}),
                _render(mine, messages, {**tokens[1], **options}),
            )
            if texts[0] != texts[1]:
                return f"{name} becomes {_around(texts[1], texts[0])}"
    return None


def _around(mine: str, theirs: str) -> str:
    """Return both texts where they part."""
    shorter = min(len(mine), len(theirs))
    start = next((i for i in range(shorter) if mine[i] != theirs[i]), shorter)
    begin = max(start - _SHOWN // 2, 0)
    return f"{mine[begin : begin + _SHOWN]!r} and was {theirs[begin : begin + _SHOWN]!r}"


def _render(template: str, messages: list[dict[str, object]], options: Mapping[str, object]) -> str:
    """Return the text, or why there is none: a template may refuse a conversation."""
    from transformers.utils.chat_template_utils import (  # noqa: PLC0415 -- takes seconds
        render_jinja_template,
    )

    today = datetime.now(UTC).strftime("%d %b %Y")
    try:
        arguments: dict[str, Any] = {**options, "date_string": today}
        rendered = render_jinja_template(
            conversations=[messages], chat_template=template, **arguments
        )
    except (TemplateError, TypeError, ValueError) as error:
        return f"no text, but {type(error).__name__}: {error}"
    return str(rendered[0][0])


def _read_template(folder: Path) -> str | None:
    """Return the default chat template, from whichever place tokenizers read it."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = _read(folder / name).get("chat_template")
        if isinstance(found, list):
            by_name = {t.get("name"): t.get("template") for t in found if isinstance(t, dict)}
            found = by_name.get("default")
        if isinstance(found, str):
            return found
    return None


def _special_tokens(folder: Path) -> Mapping[str, object]:
    """Return the tokens that templates may print."""
    config = _read(folder / "tokenizer_config.json")
    tokens = {}
    for name in _TOKENS:
        value = config.get(name)
        tokens[name] = value.get("content") if isinstance(value, dict) else value
    return {name: value for name, value in tokens.items() if value is not None}


def _read(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
