"""Write a noun as JSON and read it again; digests of nouns.

A file appears under its name complete or not at all: it is written to a temporary name beside
it, flushed to the disk, then renamed.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunDirectoryError

T = TypeVar("T")
MADE_FROM = "made_from"
_PLAIN = frozenset({str, int, float, bool, type(None)})
_FIELDS: dict[type[object], tuple[str, ...] | None] = {}
"""Of dataclasses, by class: they are asked for once a layer of a plan. None for other classes."""


def to_json(noun: object) -> object:
    """Return `noun` as plain JSON values.

    Raises:
        TypeError: it holds something that JSON has no form for.
    """
    kind = type(noun)
    if kind in _PLAIN:
        return noun
    if kind not in _FIELDS:
        _FIELDS[kind] = _fields_of(kind)
    if (names := _FIELDS[kind]) is not None:
        return {name: to_json(getattr(noun, name)) for name in names}
    if isinstance(noun, Mapping):
        return {str(key): to_json(value) for key, value in noun.items()}
    if isinstance(noun, tuple | list):
        return [to_json(value) for value in noun]
    return _scalar(noun)


def _scalar(noun: object) -> object:
    if isinstance(noun, Enum):
        return noun.value
    if isinstance(noun, date):
        return noun.isoformat()
    if isinstance(noun, str | int | float):  # of a class of its own
        return noun
    message = f"{type(noun).__name__} has no JSON form"
    raise TypeError(message)


def _fields_of(kind: type[object]) -> tuple[str, ...] | None:
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def digest_of(*nouns: object) -> str:
    """Return the sha256 of nouns or plain values, as 64 hexadecimal digits."""
    text = json.dumps([to_json(n) for n in nouns], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that `path` is either the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def save(noun: object, path: Path, *, made_from: str | None = None) -> None:
    """Write a noun as JSON; NaN and infinity are refused, for JSON has neither.

    Args:
        noun: a dataclass.
        path: of the file.
        made_from: digest of what it was made from, kept in the same file so that the two
            cannot come apart.
    """
    values = to_json(noun)
    if made_from is not None and isinstance(values, dict):
        values = {MADE_FROM: made_from, **values}
    write_atomically(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def made_from(path: Path) -> str | None:
    """Return the digest of what the noun in `path` was made from; None if there is none."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    found = values.get(MADE_FROM) if isinstance(values, dict) else None
    return found if isinstance(found, str) else None


def load(cls: type[T], path: Path) -> T:
    """Read a noun of class `cls`.

    Raises:
        RunDirectoryError: the file is no such noun.
    """
    try:
        values = json.loads(path.read_bytes())
        if isinstance(values, dict):
            values.pop(MADE_FROM, None)
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        found = f"{where}: {first['msg']}"
    except (OSError, ValueError) as error:
        found = str(error)
    message = (
        f"'{path}' is no {cls.__name__}: {found}. "
        "Delete the file, or use --fresh to start the run again."
    )
    raise RunDirectoryError(message)
