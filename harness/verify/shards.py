"""Headers of safetensors files, read so that a broken file becomes a finding.

A safetensors file is eight bytes with the length of a JSON header, the header, then the data.
The ordinary reader refuses a file at the first thing that is wrong with it; a verifier must go on
and say what is wrong, so it reads headers itself.

Source: the format's description, https://huggingface.co/docs/safetensors.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from harness.artifacts import TensorHeader
from harness.reading import DTYPE_BITS

ITEM_BYTES = {name: bits // 8 for name, bits in DTYPE_BITS.items() if bits % 8 == 0}
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""


class Entry(NamedTuple):
    """One tensor of a shard and where its data lies."""

    header: TensorHeader
    start: int
    """First byte of its data, counted from the beginning of the data."""
    end: int


class Shard(NamedTuple):
    """One safetensors file."""

    name: str
    entries: Mapping[str, Entry]
    """By tensor name; empty where the header cannot be read."""
    data_start: int
    """Where the data begins in the file."""
    problem: str | None
    """What is wrong with the file; its data must not be read then."""


@dataclass(frozen=True, slots=True)
class _RawEntry:
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_HEADER = TypeAdapter(dict[str, _RawEntry])


def read_shard(path: Path) -> Shard:
    """Read a shard's header and compare it with the size of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        data_start = _LENGTH_BYTES + length
        if size < _LENGTH_BYTES or data_start > size or length > _MAX_HEADER_BYTES:
            return _broken(path, f"{path.name} has {size} bytes, its header alone needs more")
        text = file.read(length)
    try:
        described = _HEADER.validate_python(_without_metadata(json.loads(text)))
    except ValueError:
        return _broken(path, f"the header of {path.name} is no safetensors header")
    entries = {name: _entry(path.name, value, data_start) for name, value in described.items()}
    return Shard(path.name, entries, data_start, _problem(path.name, entries, size - data_start))


def _without_metadata(header: object) -> object:
    """Return the tensors of a header; the metadata is free text."""
    if not isinstance(header, dict):
        return header
    return {name: value for name, value in header.items() if name != "__metadata__"}


def _broken(path: Path, problem: str) -> Shard:
    return Shard(path.name, {}, 0, problem)


def _entry(shard: str, raw: _RawEntry, data_start: int) -> Entry:
    start, end = raw.data_offsets
    header = TensorHeader(
        shard=shard,
        dtype=raw.dtype,
        shape=raw.shape,
        num_bytes=end - start,
        offset=data_start + start,
    )
    return Entry(header, start, end)


def _problem(shard: str, entries: Mapping[str, Entry], data_bytes: int) -> str | None:
    """Return what is wrong between the header and the data, if anything is."""
    needed = max((entry.end for entry in entries.values()), default=0)
    if needed > data_bytes:
        return f"{shard} ends {needed - data_bytes} bytes early: it was cut off"
    for name, entry in entries.items():
        item_bytes = ITEM_BYTES.get(entry.header.dtype)
        if item_bytes is None:
            return f"{shard}: {name} has the unknown type '{entry.header.dtype}'"
        if math.prod(entry.header.shape) * item_bytes != entry.end - entry.start:
            return f"{shard}: the shape of {name} does not fit the bytes it has"
    return None
