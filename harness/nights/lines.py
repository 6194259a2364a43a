"""The files of a ledger: one for each machine that writes, each line chained to the one before.

A line is JSON: `previous`, the sha256 of the line before it; `origin`, the file for which the row
was first written, and `order`, its place among all rows that were known then; `id`, the sha256 of
the row; and the row. A line that was edited, taken out or put elsewhere breaks the chain.

A chain does not show that its end is gone. So beside each file lies its head: how many lines it
has, the sha256 of the last one, and how many lines of every other machine's file were seen. A file
that is shorter than its own head or another's says, or is missing, is told.

A line is written before its head. Whole lines beyond the head are rows whose writer was killed
between the two, or is there just now; what stands behind the last line feed is a row that was being
written and that nobody was told was kept.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import digest_of, load, to_json
from harness.artifacts.nights import NightRow
from harness.errors import ReasonCode, RunDirectoryError, UnreadableError
from harness.reading import bounds, read_bytes, read_json_object_text

LINES, HEAD = ".jsonl", ".head.json"
PREFIX = "ledger."
_ADVICE = "Put the file back as it was, or move the ledger away and begin another."
_FIELDS = {"previous", "origin", "order", "id", "row"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a file of a ledger holds at least."""

    origin: str
    """Drawn when the file was begun; the first line is chained to it."""
    lines: int = 0
    last: str = ""
    """sha256 of the last of these lines."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Lines of the other files of the same ledger, by name, when the last one was written."""


class Line(NamedTuple):
    """One row as it lies in a file."""

    origin: str
    order: int
    id: str
    row: Mapping[str, object]
    """As JSON."""


def line_of(row: NightRow, *, origin: str, order: int) -> Line:
    """Return the line of a row.

    Raises:
        ValueError: a number of it is not finite.
    """
    values = to_json(row)
    if not isinstance(values, dict):
        raise TypeError(type(row))
    return Line(origin, order, digest_of(values), values)


def written(line: Line, previous: str) -> bytes:
    """Return the bytes of a line, which follows the one with the sha256 `previous`."""
    values = {"previous": previous, **line._asdict()}
    return json.dumps(values, allow_nan=False).encode() + b"\n"


def sha256_of(line: bytes) -> str:
    """Return the sha256 of a line, its line feed included."""
    return hashlib.sha256(line).hexdigest()


def read_heads(folder: Path) -> dict[str, Head]:
    """Return the heads of a ledger, by the name of the file that each is of."""
    names = sorted(path.name.removesuffix(HEAD) for path in folder.glob(f"{PREFIX}*{HEAD}"))
    return {name: _head_of(folder, name) for name in names}


@dataclass(slots=True)
class Verified:
    """Lines of one file whose chain was checked, so that only those after them have to be."""

    content: bytes = b""
    lines: list[Line] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    """sha256 of each line."""


def read_ledger(folder: Path, known: dict[str, Verified] | None = None) -> dict[str, list[Line]]:
    """Return the lines of every file of a ledger, by its name; nothing where there is none.

    Heads are read before lines, which were written before them: a row that is added meanwhile is
    never taken for a loss.

    Args:
        folder: of the ledger.
        known: what the same reader has checked before, by the file's name; it is brought up to
            date. Files are read in whole all the same: what differs is checked anew.

    Raises:
        RunDirectoryError: lines were changed or are missing.
    """
    heads = read_heads(folder)
    known = {} if known is None else known
    names = {path.name.removesuffix(LINES) for path in folder.glob(f"{PREFIX}*{LINES}")}
    for name in names - heads.keys():
        heads[name] = _head_of(folder, name)
    for name, head in heads.items():
        known[name] = _verified(folder / f"{name}{LINES}", head, known.get(name, Verified()))
    found = {name: known[name].lines for name in heads}
    for by, head in heads.items():
        for name, number in head.seen.items():
            there = len(found.get(name, ()))
            if there < number:
                path = folder / f"{name}{LINES}"
                raise _changed(path, f"it has {there} lines, and '{by}{HEAD}' saw {number}")
    return found


def _verified(path: Path, head: Head, known: Verified) -> Verified:
    """Return the whole lines of one file, checked against its head.

    Raises:
        RunDirectoryError: lines were changed or are missing.
    """
    raws = whole_lines(path)
    content = b"".join(raws)
    if not known.digests or not content.startswith(known.content):
        known = Verified()
    found = Verified(content, [*known.lines], [*known.digests])
    previous = found.digests[-1] if found.digests else head.origin
    for raw in raws[len(found.lines) :]:
        found.lines.append(_line_in(raw, previous, f"{path}:{len(found.lines) + 1}"))
        previous = sha256_of(raw)
        found.digests.append(previous)
    if len(found.lines) < head.lines:
        raise _changed(path, f"it has {len(found.lines)} lines, and its head says {head.lines}")
    if head.lines and found.digests[head.lines - 1] != head.last:
        raise _changed(path, f"line {head.lines} is another than its head says")
    return found


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file that end; what stands behind the last line feed is none."""
    if not path.exists():
        return []
    content = read_bytes(path, most=bounds.LINES_BYTES)
    return [line + b"\n" for line in content.split(b"\n")[:-1]]


def _line_in(raw: bytes, previous: str, where: str) -> Line:
    """Return a line that follows the one with the sha256 `previous`."""
    try:
        values = read_json_object_text(raw, where, most=bounds.LINE_BYTES)
    except UnreadableError as error:
        raise _changed(where, f"it {error.why}") from error
    row, order = values.get("row"), values.get("order")
    if values.keys() != _FIELDS or not isinstance(row, dict) or not isinstance(order, int):
        raise _changed(where, "it is no line of a ledger")
    if values["previous"] != previous:
        raise _changed(where, "it does not follow the line before it")
    if values["id"] != digest_of(row):
        raise _changed(where, "its row is not what its id says")
    return Line(str(values["origin"]), order, str(values["id"]), row)


def _head_of(folder: Path, name: str) -> Head:
    path = folder / f"{name}{HEAD}"
    if not path.exists():
        raise _changed(path, "it is not there")
    return load(Head, path, advice=_ADVICE)


def _changed(where: Path | str, why: str) -> RunDirectoryError:
    message = f"the ledger '{where}' was changed after harness wrote it: {why}. {_ADVICE}"
    return RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
