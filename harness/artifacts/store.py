"""Write a noun as JSON and read it again; digests of nouns.

A file appears under its name complete or not at all: it is written to a temporary name beside
it, flushed to the disk, then renamed.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.errors import RunDirectoryError

T = TypeVar("T")


def to_json(noun: object) -> object:
    """Return `noun` as plain JSON values.

    Raises:
        TypeError: it holds something that JSON has no form for.
    """
    if dataclasses.is_dataclass(noun) and not isinstance(noun, type):
        return {f.name: to_json(getattr(noun, f.name)) for f in dataclasses.fields(noun)}
    if isinstance(noun, Mapping):
        return {str(key): to_json(value) for key, value in noun.items()}
    if isinstance(noun, tuple | list):
        return [to_json(value) for value in noun]
    if isinstance(noun, Enum):
        return noun.value
    if noun is None or isinstance(noun, str | int | float | bool):
        return noun
    message = f"{type(noun).__name__} has no JSON form"
    raise TypeError(message)


def digest_of(*nouns: object) -> str:
    """Return the sha256 of nouns or plain values, as 64 hexadecimal digits."""
    text = json.dumps([to_json(n) for n in nouns], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that `path` is either the old file or the whole new one."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def save(noun: object, path: Path) -> None:
    """Write `noun` as JSON; NaN and infinity are refused, for JSON has neither."""
    write_atomically(path, json.dumps(to_json(noun), indent=1, allow_nan=False) + "\n")


def load(cls: type[T], path: Path) -> T:
    """Read a noun of class `cls`.

    Raises:
        RunDirectoryError: the file is no such noun.
    """
    try:
        return TypeAdapter(cls).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        message = (
            f"'{path}' is no {cls.__name__}: {where}: {first['msg']}. "
            "Delete the file, or use --fresh to start the run again."
        )
        raise RunDirectoryError(message) from error
