"""Single tensors, or parts of them, of a folder of safetensors files, read when asked for.

For the model that a checkpoint was made from, and for the small scales that belong to a weight
which is being read. Nothing is kept and nothing is mapped, so memory is bounded by what is asked.
Files stay open while the folder is held, and a read says where it begins, so that threads share
them.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TensorHeader
from harness.models import FileState, state_of
from harness.resources import ResourceOwner
from harness.verify.shards import ITEM_BYTES, Shard

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class StoredPart(NamedTuple):
    """A part of a stored tensor: all of it, or some rows of one expert."""

    tensor: str
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the beginning of the tensor."""
    strides: tuple[int, int] | None = None
    """Elements from a row to the next, and from a column; None where the part is contiguous."""


class Buffers:
    """The memory of one thread, used again for each piece: fresh pages cost more than a look."""

    def __init__(self) -> None:
        self._held: dict[str, Bytes] = {}

    def room(self, purpose: str, num_bytes: int) -> Bytes:
        """Return memory for one purpose; what was there before is lost."""
        held = self._held.get(purpose)
        if held is None or held.size < num_bytes:
            held = self._held[purpose] = np.empty(num_bytes, np.uint8)
        return held[:num_bytes]


class StoredTensors(ResourceOwner):
    """The tensors of a folder's files by name; a context manager that holds the files open."""

    def __init__(self, directory: Path, shards: tuple[Shard, ...]) -> None:
        super().__init__()
        self.directory = directory
        self._places = {
            name: (shard.name, shard.data_start + entry.start)
            for shard in shards
            for name, entry in shard.entries.items()
        }
        self.headers: Mapping[str, TensorHeader] = {
            name: entry.header for shard in shards for name, entry in shard.entries.items()
        }
        self._shards = tuple(shard.name for shard in shards)
        self._files: dict[str, int] = {}

    def _open(self) -> None:
        for shard in self._shards:
            descriptor = os.open(self.directory / shard, os.O_RDONLY)
            self._exits.callback(os.close, descriptor)
            self._files[shard] = descriptor

    def state_of(self, shard: str) -> FileState:
        """Return what tells, later, that a file is still the one that is held open."""
        return state_of(os.fstat(self._files[shard]))

    def whole(self, name: str) -> StoredPart:
        """Return the part that is all of a tensor."""
        return StoredPart(name, self.headers[name].shape, 0)

    def row_bytes(self, part: StoredPart) -> int:
        """Return the bytes of one row, which is everything behind the first dimension."""
        return math.prod(part.shape[1:]) * ITEM_BYTES[self.headers[part.tensor].dtype]

    def read(self, part: StoredPart, rows: tuple[int, int] | None = None) -> Bytes:
        """Return the bytes of a part, or of some of its rows."""
        first, last = rows or (0, part.shape[0] if part.shape else 1)
        row_bytes = self.row_bytes(part)
        content = np.empty((last - first) * row_bytes, np.uint8)
        self.fill(content, part, first * row_bytes)
        return content

    def fill(self, content: Bytes, part: StoredPart, start: int) -> None:
        """Read the bytes of a part from its byte `start` on into memory that is there.

        Of a part that is not contiguous these are whole rows.
        """
        shard, position = self._places[part.tensor]
        if part.strides is None:
            self.fill_from(content, shard, position + part.start + start)
            return
        item_bytes = ITEM_BYTES[self.headers[part.tensor].dtype]
        begin, num_bytes = strided_bytes(part, item_bytes, start, content.size)
        span = np.empty(num_bytes, np.uint8)
        self.fill_from(span, shard, position + begin)
        copy_strided(content, span, part, item_bytes)

    def fill_raw(self, content: Bytes, name: str, start: int) -> None:
        """Read bytes of a tensor as they are stored, from its byte `start` on."""
        shard, position = self._places[name]
        self.fill_from(content, shard, position + start)

    def fill_from(self, content: Bytes, shard: str, position: int) -> int:
        """Read a file from `position` on; return the bytes, fewer where the file ends."""
        view, done = content.data, 0
        while done < content.size:
            count = os.preadv(self._files[shard], (view[done:],), position + done)
            if count == 0:
                break
            done += count
        return done

    def floats(self, part: StoredPart, rows: tuple[int, int] | None = None) -> Floats:
        """Return a part's values as float32 in its shape, or those of some rows."""
        shape = part.shape if rows is None else (rows[1] - rows[0], *part.shape[1:])
        return to_floats(self.read(part, rows), self.headers[part.tensor].dtype).reshape(shape)


def strided_bytes(part: StoredPart, item_bytes: int, start: int, size: int) -> tuple[int, int]:
    """Return where in its tensor the bytes begin that whole rows of a part lie in, and how many.

    Args:
        part: one that is not contiguous.
        item_bytes: of an element.
        start: first byte of the rows, counted in the part.
        size: bytes of the rows.
    """
    (row, column), width = part.strides or (part.shape[1], 1), part.shape[1]
    first, num_rows = (count // (width * item_bytes) for count in (start, size))
    num_items = (num_rows - 1) * row + (width - 1) * column + 1
    return part.start + first * row * item_bytes, num_items * item_bytes


def copy_strided(content: Bytes, span: Bytes, part: StoredPart, item_bytes: int) -> None:
    """Copy whole rows of a part out of the bytes that they lie in."""
    (row, column), width = part.strides or (part.shape[1], 1), part.shape[1]
    shape = (content.size // (width * item_bytes), width, item_bytes)
    strides = (row * item_bytes, column * item_bytes, 1)
    content.reshape(shape)[:] = np.lib.stride_tricks.as_strided(span, shape, strides)


def is_number(dtype: str) -> bool:
    """Return whether values of a type can be read as float32."""
    return dtype == "BF16" or dtype in BYTE_VALUES or dtype in _FLOATS


def to_floats(content: Bytes, dtype: str) -> Floats:
    """Return stored bytes as float32.

    Raises:
        KeyError: the type holds no plain numbers.
    """
    values = np.empty(content.size // ITEM_BYTES[dtype], np.float32)
    fill_floats(values, content, dtype)
    return values


def fill_floats(values: Floats, content: Bytes, dtype: str) -> None:
    """Write stored bytes as float32 into memory that is there.

    Raises:
        KeyError: the type holds no plain numbers.
    """
    if dtype == "BF16":
        bits = values.view(np.uint32)
        np.left_shift(content.view(np.uint16), 16, out=bits, dtype=np.uint32)
    elif dtype in BYTE_VALUES:
        # "raise", the default, would go through a copy of what is taken
        BYTE_VALUES[dtype].take(content, out=values, mode="clip")
    else:
        np.copyto(values, content.view(_FLOATS[dtype]), casting="same_kind")


def _e4m3_values() -> Floats:
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (8.0 + mantissa) * np.exp2(exponent - 10.0)
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, normal)
    magnitude[(codes & 0x7F) == 0x7F] = np.nan  # noqa: PLR2004  the only code that is no number
    return np.where(codes < 128, magnitude, -magnitude).astype(np.float32)  # noqa: PLR2004  sign bit


def _e8m0_values() -> Floats:
    """Return powers of two; the last is no number, and infinity says so as well."""
    powers = np.exp2(np.arange(255, dtype=np.float32) - 127)
    return np.append(powers, np.float32(np.inf))


E4M3_VALUES = _e4m3_values()
"""The value of each code."""
BYTE_VALUES: Mapping[str, Floats] = {
    "F8_E4M3": E4M3_VALUES,
    "U8": _e8m0_values(),
}
"""The value of each byte, by type."""
_FLOATS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
