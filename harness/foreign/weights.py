"""Which weights a tool was told to load, as far as its arguments say it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

_ALTERS = re.compile(
    r"quant|[48]bit|gptq|gguf|peft|delta|lora|adapter|kv_cache|revision|subfolder|load_format|override",
    re.IGNORECASE,
)
"""Arguments with which the weights, or their arithmetic, are others than the place named has."""
_UNSET = frozenset({"", "None", "False", "false", "auto", "main"})


def as_they_are(model: str, arguments: object) -> str:
    """Return the folder or repository whose weights a tool loaded as they are; empty if altered.

    Args:
        model: as the tool was told it.
        arguments: of its loading, a mapping or `name=value` with commas between.
    """
    if not isinstance(arguments, Mapping):
        arguments = dict(pair.partition("=")[::2] for pair in str(arguments or "").split(","))
    alters = any(_ALTERS.search(str(k)) and str(v) not in _UNSET for k, v in arguments.items())
    return "" if alters else model


def is_same_place(one: str, other: str) -> bool:
    """Return whether both name one folder or repository; what is empty names none."""
    return bool(one and other) and _whereabouts(one) == _whereabouts(other)


def _whereabouts(model: str) -> str:
    """Return a model's repository where its folder is in the Hub's cache, else its folder."""
    is_here = os.path.exists(model)  # noqa: PTH110 -- a name may be longer than any path
    place = os.path.realpath(model) if is_here else os.path.normpath(model)
    cached = next((part for part in Path(place).parts if part.startswith("models--")), None)
    return place if cached is None else cached.removeprefix("models--").replace("--", "/")
