"""Write a noun as JSON, read it again, and compute its digest.

A file is complete or absent (harness.doors). It holds the digests of what it was made from, by
name, and the sha256 of its own content: an edited file is not believed, and two files can be shown
to belong together.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from datetime import date
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from harness.doors import write_atomically
from harness.errors import ReasonCode, RunDirectoryError, UnreadableError
from harness.reading import bounds, read_json_object

T = TypeVar("T")
MADE_FROM = "made_from"
RECORD_SHA256 = "record_sha256"
START_AGAIN = "type the command of the run with --fresh"
"""What helps where files of a run directory are damaged, whichever command met them."""
MadeFrom = Mapping[str, str]
"""Digests by the name of what they are of, such as `checkpoint`."""
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
    # Most values are plain, and are not worth a call each: a plan has 600,000.
    if (names := _FIELDS[kind]) is not None:
        return {
            name: value if type(value := getattr(noun, name)) in _PLAIN else to_json(value)
            for name in names
        }
    if isinstance(noun, Mapping):
        return {
            str(key): value if type(value) in _PLAIN else to_json(value)
            for key, value in noun.items()
        }
    if isinstance(noun, tuple | list):
        return [value if type(value) in _PLAIN else to_json(value) for value in noun]
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


def save(noun: object, path: Path, *, made_from: MadeFrom | None = None) -> str:
    """Write a noun as JSON and return its digest; NaN and infinity are refused.

    Args:
        noun: a dataclass.
        path: of the file.
        made_from: digests of what it was made from, kept in the same file so that the two cannot
            come apart.

    Returns:
        The sha256 of what the file says, `made_from` included; the file holds it too.
    """
    values = to_json(noun)
    if not isinstance(values, dict):
        message = f"{type(noun).__name__} is no record"
        raise TypeError(message)
    record = {MADE_FROM: dict(made_from or {}), **values}
    digest = digest_of_record(record)
    write_atomically(path, text_of_record({RECORD_SHA256: digest, **record}))
    return digest


def text_of_record(values: Mapping[str, object]) -> str:
    """Return how the values of a noun's file are spelled: the same values in one way only."""
    return json.dumps(values, indent=1, allow_nan=False) + "\n"


def made_from(path: Path) -> MadeFrom | None:
    """Return the digests of what the noun in `path` was made from; None if there is no noun.

    Raises:
        RunDirectoryError: the file says something else than what was written.
    """
    record = _read_record(path)
    return None if record is None else record.made_from


def record_digest(path: Path) -> str | None:
    """Return the digest of the noun in `path`; None if there is no noun.

    Raises:
        RunDirectoryError: the file says something else than what was written.
    """
    record = _read_record(path)
    return None if record is None else record.digest


def load(cls: type[T], path: Path, *, advice: str = f"Delete the file, or {START_AGAIN}.") -> T:
    """Read a noun of class `cls`.

    Args:
        cls: of the noun.
        path: of its file.
        advice: what to do where it cannot be read, as a sentence.

    Raises:
        RunDirectoryError: the file is no such noun, or says something else than what was written.
    """
    try:
        record = _parse(path)
        return TypeAdapter(cls).validate_python(record.values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        found = f"{where}: {first['msg']}"
    except ValueError as error:
        found = str(error)
    message = f"'{path}' is no {cls.__name__}: {found}. {advice}"
    raise RunDirectoryError(message)


class _Record(NamedTuple):
    """A file of a noun."""

    digest: str
    made_from: MadeFrom
    values: dict[str, object]
    """The noun's own."""


def _read_record(path: Path) -> _Record | None:
    try:
        return _parse(path)
    except ValueError:
        return None


def _parse(path: Path) -> _Record:
    """Read a record whose digest fits.

    Raises:
        ValueError: it is no record at all.
        RunDirectoryError: it was changed after it was written.
    """
    try:
        values = read_json_object(path, most=bounds.INDEX_BYTES)
    except UnreadableError as error:
        message = f"it {error.why}"
        raise ValueError(message) from error
    digest = values.pop(RECORD_SHA256, None)
    ingredients = values.get(MADE_FROM)
    if not isinstance(digest, str) or not isinstance(ingredients, dict):
        message = f"it has no {RECORD_SHA256}: another version of harness wrote it"
        raise ValueError(message)  # noqa: TRY004 -- of the file's content, not of an argument
    if digest_of_record(values) != digest:
        message = (
            f"'{path}' was changed after harness wrote it: it is not what its {RECORD_SHA256} "
            f"{digest[:12]} says. Put the file back as it was, or {START_AGAIN}."
        )
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    del values[MADE_FROM]
    return _Record(digest, {str(k): str(v) for k, v in ingredients.items()}, values)


def digest_of_record(values: Mapping[str, object]) -> str:
    """Return the sha256 of what a noun's file says beside that sha256 itself."""
    text = json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
