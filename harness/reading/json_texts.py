"""JSON that others wrote: one reader, as strict as the strictest loader that reads it after us.

transformers, vLLM and the tokenizers library refuse byte order marks and UTF-16, which Python's
own reader takes. A key given twice is an error, for readers differ in which one they take.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import UnreadableError
from harness.reading import bounds
from harness.reading.opened import as_utf8, open_regular, read_bytes, readable
from harness.reading.values import refuse_beyond

_MARK = b"\xef\xbb\xbf"


class JsonLine(NamedTuple):
    """One line of JSON lines."""

    number: int
    """From 1 on."""
    value: object
    where: str
    """As an error about it begins."""


def read_json(path: Path, *, most: int = bounds.CONFIG_BYTES, infinity: bool = False) -> object:
    """Return the value in a JSON file.

    Args:
        path: of a regular file.
        most: bytes that it may have.
        infinity: whether infinite numbers may occur; NaN never may.

    Raises:
        UnreadableError: it cannot be read within the bounds.
    """
    return read_json_text(read_bytes(path, most=most), f"'{path}'", infinity=infinity)


def read_json_object(
    path: Path, *, most: int = bounds.CONFIG_BYTES, infinity: bool = False
) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UnreadableError: it cannot be read within the bounds, or holds something else.
    """
    return _an_object(read_json(path, most=most, infinity=infinity), f"'{path}'")


def read_json_text(
    text: bytes | str, where: str, *, most: int | None = None, infinity: bool = False
) -> object:
    """Return the value in a JSON text, such as the answer of a server.

    Args:
        text: bytes in UTF-8, or text.
        where: what the text is, as an error begins: `'config.json'`, `the answer of URL`.
        most: bytes or characters that it may have; None where who read it knows the bound.
        infinity: whether infinite numbers may occur.

    Raises:
        UnreadableError: it cannot be read within the bounds.
    """
    if most is not None and len(text) > most:
        raise UnreadableError(where, f"has {len(text)} bytes, more than the {most} of any such")
    value = parse(as_utf8(text, where) if isinstance(text, bytes) else text, where)
    refuse_beyond(value, where, infinity=infinity)
    return value


def parse(text: str, where: str, **hooks: Callable[[str], object]) -> object:
    """Return the value in a JSON text, of which only keys and syntax are looked at.

    Args:
        text: all of it.
        where: as an error begins.
        hooks: of json.loads, which may raise ValueError for a number.

    Raises:
        UnreadableError: it is no JSON, has a key twice, or a number that is refused.
    """
    try:
        value: object = json.loads(text, object_pairs_hook=_without_doubles, **hooks)  # type: ignore[arg-type]
    except json.JSONDecodeError as error:
        raise UnreadableError(where, f"is not JSON: {error}") from error
    except RecursionError as error:
        why = f"is nested more than {bounds.DEPTH} levels deep"
        raise UnreadableError(where, why) from error
    except _DoubleKeyError as error:
        raise UnreadableError(where, f"has the key '{error}' twice") from error
    except ValueError as error:  # of a hook, or Python's own limit of digits
        raise UnreadableError(where, "holds a number that is negative or too large") from error
    return value


def read_json_object_text(
    text: bytes | str, where: str, *, most: int | None = None
) -> dict[str, Any]:
    """Return the object in a JSON text.

    Raises:
        UnreadableError: it cannot be read within the bounds, or holds something else.
    """
    return _an_object(read_json_text(text, where, most=most), where)


def iter_json_lines(path: Path) -> Iterator[JsonLine]:
    """Yield the values of a file of JSON lines as they are read; an empty last line is left out.

    A line ends at a line feed alone: other separators of Unicode may occur within a text. A byte
    order mark in front of the first line is left out, as editors put it there unasked.

    Raises:
        UnreadableError: a line cannot be read within the bounds, with its number.
    """
    with open_regular(path) as file:
        number, total = 0, 0
        while line := _next_line(path, file):
            number, total = number + 1, total + len(line)
            where = f"{path}:{number}: the line"
            if len(line) > bounds.LINE_BYTES:
                raise UnreadableError(where, f"has more than {bounds.LINE_BYTES} bytes")
            if total > bounds.LINES_BYTES:
                raise UnreadableError(path, f"has more than {bounds.LINES_BYTES} bytes")
            text = line.removeprefix(_MARK) if number == 1 else line
            if text.strip() or _next_bytes(path, file):
                yield JsonLine(number, read_json_text(text.rstrip(b"\r\n"), where), where)


def _next_line(path: Path, file: BufferedReader) -> bytes:
    with readable(path):
        return file.readline(bounds.LINE_BYTES + 1)


def _next_bytes(path: Path, file: BufferedReader) -> bytes:
    with readable(path):
        return file.peek(1)


class _DoubleKeyError(ValueError):
    """An object has a key twice."""


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _DoubleKeyError(counts.most_common(1)[0][0][:80])
    return values


def _an_object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableError(where, f"holds no JSON object but {_kind(value)}")
    return value


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else f"{value!r:.40}"
