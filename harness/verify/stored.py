"""Single tensors, or parts of them, of a folder of safetensors files, read when asked for.

For the model that a checkpoint was made from, and for the small scales that belong to a weight
which is being read. Nothing is kept and nothing is mapped, so memory is bounded by what is asked.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.artifacts import TensorHeader
from harness.verify.shards import ITEM_BYTES, Shard

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Part(NamedTuple):
    """A contiguous part of a stored tensor: all of it, or some rows of one expert."""

    tensor: str
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the beginning of the tensor."""


class StoredTensors:
    """The tensors of a folder's files by name."""

    def __init__(self, directory: Path, shards: tuple[Shard, ...]) -> None:
        self._directory = directory
        self._places = {
            name: (shard.name, shard.data_start + entry.start)
            for shard in shards
            for name, entry in shard.entries.items()
        }
        self.headers: Mapping[str, TensorHeader] = {
            name: entry.header for shard in shards for name, entry in shard.entries.items()
        }

    def whole(self, name: str) -> Part:
        """Return the part that is all of a tensor."""
        return Part(name, self.headers[name].shape, 0)

    def row_bytes(self, part: Part) -> int:
        """Return the bytes of one row, which is everything behind the first dimension."""
        items = int(np.prod(part.shape[1:], dtype=np.int64))
        return items * ITEM_BYTES[self.headers[part.tensor].dtype]

    def read(self, part: Part, rows: tuple[int, int] | None = None) -> Bytes:
        """Return the bytes of a part, or of some of its rows."""
        shard, position = self._places[part.tensor]
        first, last = rows or (0, part.shape[0] if part.shape else 1)
        row_bytes = self.row_bytes(part)
        content = np.empty((last - first) * row_bytes, np.uint8)
        with (self._directory / shard).open("rb", buffering=0) as file:
            file.seek(position + part.start + first * row_bytes)
            view, done = content.data, 0
            while done < content.size and (count := file.readinto(view[done:])):
                done += count
        return content

    def floats(self, part: Part, rows: tuple[int, int] | None = None) -> Floats:
        """Return a part's values as float32 in its shape, or those of some rows."""
        shape = part.shape if rows is None else (rows[1] - rows[0], *part.shape[1:])
        return to_floats(self.read(part, rows), self.headers[part.tensor].dtype).reshape(shape)


def to_floats(content: Bytes, dtype: str) -> Floats:
    """Return stored bytes as float32.

    Raises:
        KeyError: the type holds no plain numbers.
    """
    if dtype == "BF16":
        return (content.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype == "F8_E4M3":
        return E4M3_VALUES[content]
    if dtype == "U8":  # E8M0: powers of two
        return np.exp2(content.astype(np.float32) - 127)
    return content.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]).astype(
        np.float32
    )


def _e4m3_values() -> Floats:
    codes = np.arange(256)
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (8.0 + mantissa) * np.exp2(exponent - 10.0)
    magnitude = np.where(exponent == 0, mantissa * 2.0**-9, normal)
    magnitude[(codes & 0x7F) == 0x7F] = np.nan  # noqa: PLR2004  the only code that is no number
    return np.where(codes < 128, magnitude, -magnitude).astype(np.float32)  # noqa: PLR2004  sign bit


E4M3_VALUES = _e4m3_values()
"""The value of each code."""
