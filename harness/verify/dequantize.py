"""What a stored weight means: codes times steps, for every format that the checks know.

All formats come down to one shape: a code a weight (E2M1, two in a byte, or E4M3) and a matrix of
steps, each for a tile of the weight: 1 x 16 or 1 x 32 neighbours, a row, 128 x 128, or all of it.
Written apart from harness.formats, so that a mistake in the writer is not repeated here.

A weight is made in pieces of some rows (`Rows`), by looking codes up and, where a step is one byte,
its steps too, each written out over its tile: look-ups and products are few calls of numpy on
memory that is there already, because threads wait for each other's Python.

Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/*.py; compressed-tensors 0.17.0,
compressors/nvfp4_quantized.py; OCP Microscaling formats, version 1.0.
"""

from typing import NamedTuple

import numpy as np

from harness.artifacts import TensorHeader
from harness.verify.layouts import DIVISORS, Layout, Stored
from harness.verify.modules import tensor_of
from harness.verify.shards import ITEM_BYTES
from harness.verify.stored import (
    BYTE_VALUES,
    E4M3_VALUES,
    Buffers,
    Bytes,
    Floats,
    StoredPart,
    StoredTensors,
    is_number,
    to_floats,
)

_TILE = 128
_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
_SIGNED = np.concatenate([_E2M1, -_E2M1])
_PAIRS = (
    np.stack([np.tile(_SIGNED, 16), np.repeat(_SIGNED, 16)], axis=-1).copy().view(np.uint64).ravel()
)
"""The two values of each byte, the low half first, as one item so that one look-up finds both."""


class Coded(NamedTuple):
    """A quantized weight [out, in] in a file."""

    codes: StoredPart
    """[out, in], or [out, in / 2] where two codes share a byte."""
    is_packed: bool
    scale: StoredPart
    """The steps before the global scale, which turns them into what codes are multiplied with."""
    factor: np.float32
    """The global scale, or 1."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (out, in)."""
        return self.codes.shape[0], self.codes.shape[1] * (2 if self.is_packed else 1)


class Weight(NamedTuple):
    """The first rows of a quantized weight, in memory."""

    codes: Bytes
    """[rows, in], or [rows, in / 2] where two codes share a byte."""
    is_packed: bool
    steps: Floats
    """Of all rows: [out / tile rows, in / tile columns], a tile as above."""
    num_rows: int
    """Of the whole weight."""

    def values(self) -> Floats:
        """Return the values of the rows."""
        table = _PAIRS if self.is_packed else E4M3_VALUES
        values: Floats = table.take(self.codes).view(np.float32)
        multiply(values, self.steps, (0, len(values)), self.num_rows)
        return values


class Rows:
    """Makes the values of a weight, some rows at a time."""

    def __init__(self, weight: Coded, stored: StoredTensors, buffers: Buffers) -> None:
        self._weight = weight
        self._table = _PAIRS if weight.is_packed else E4M3_VALUES
        self._spread: Floats | None = None
        """Each step a byte can mean, written out over its tile."""
        self._scale: Bytes | None = None
        """The byte of each step, [out, in / tile columns]."""
        self._steps: Floats | None = None
        dtype = stored.headers[weight.scale.tensor].dtype
        if _is_by_blocks(weight) and dtype in BYTE_VALUES:
            out, columns = weight.scale.shape
            self._scale = buffers.room("scale", out * columns).reshape(out, columns)
            stored.fill(self._scale.reshape(-1), weight.scale, 0)
            steps = BYTE_VALUES[dtype] * weight.factor
            self._spread = steps.repeat(weight.shape[1] // columns).reshape(256, -1)
            return
        steps = read_steps(weight, stored)
        if steps.size == 1:
            self._table = (self._table.view(np.float32) * steps.ravel()).view(self._table.dtype)
        else:
            self._steps = steps

    def fill(self, values: Floats, codes: Bytes, rows: tuple[int, int], room: Floats) -> None:
        """Write the values of some rows.

        Args:
            values: where to; flat.
            codes: the bytes of these rows.
            rows: the first, and the one behind the last.
            room: memory of the size of `values`, to be overwritten.
        """
        self._table.take(codes, out=values.view(self._table.dtype), mode="clip")
        if self._spread is not None and self._scale is not None:
            scale = self._scale[rows[0] : rows[1]].reshape(-1)
            tiles = room.reshape(-1, self._spread.shape[1])
            self._spread.take(scale, axis=0, out=tiles, mode="clip")
            np.multiply(values, room, out=values)
        elif self._steps is not None:
            out, width = self._weight.shape
            multiply(values.reshape(-1, width), self._steps, rows, out)


def _is_by_blocks(weight: Coded) -> bool:
    """Return whether each row has steps of its own, one for some neighbours."""
    out, width = weight.shape
    shape = weight.scale.shape
    return len(shape) == 2 and shape[0] == out and width // shape[1] <= _TILE  # noqa: PLR2004  a matrix


def _is_even(width: int, num_steps: int) -> bool:
    return num_steps > 0 and width % num_steps == 0


def multiply(values: Floats, steps: Floats, rows: tuple[int, int], out: int) -> None:
    """Multiply the values of some of a weight's `out` rows with their steps, in place."""
    if steps.size == 1:
        values *= steps
        return
    first, last = rows
    if steps.shape[0] == out:
        steps, width = steps[first:last], values.shape[1] // steps.shape[1]
    else:
        tiles = steps[first // _TILE : -(-last // _TILE)]
        begin = first % _TILE
        steps = np.repeat(tiles, _TILE, axis=0)[begin : begin + last - first]
        width = _TILE
    if width * steps.shape[1] != values.shape[1]:
        values *= np.repeat(steps, width, axis=1)[:, : values.shape[1]]
    else:
        tiled = values.reshape(*steps.shape, width)
        tiled *= steps[:, :, None]


def can_dequantize(algo: str | None) -> bool:
    """Return whether the weights of an algorithm can be compared with their source.

    AWQ multiplies channels of a layer and divides them in the layer before, so that its weights
    are not those of the source.
    """
    return algo is not None and "AWQ" not in algo


def find_weight(module: str, layout: Layout, stored: StoredTensors) -> Coded | None:
    """Return where a quantized weight lies; None where a scale is missing or misshapen."""
    names = {role: tensor_of(module, part.leaf) for role, part in layout.tensors.items()}
    wanted = [role for role in ("weight_scale", "global_scale") if role in names]
    if any(names[role] not in stored.headers for role in wanted):
        return None
    codes, scale = stored.whole(names["weight"]), stored.whole(names["weight_scale"])
    if len(codes.shape) != 2 or ITEM_BYTES[stored.headers[codes.tensor].dtype] != 1:  # noqa: PLR2004  a matrix
        return None  # another check says so
    out, width = codes.shape[0], codes.shape[1] * layout.packed
    if not all(_is_formed(layout.tensors[r], stored.headers[names[r]], out, width) for r in wanted):
        return None
    if len(scale.shape) == 2 and scale.shape[0] == out and not _is_even(width, scale.shape[1]):  # noqa: PLR2004  a matrix
        return None
    factor = np.float32(1)
    if "global_scale" in names:
        one = float(stored.floats(stored.whole(names["global_scale"])).ravel()[0])
        is_divisor = layout.leaf("global_scale") in DIVISORS
        factor = np.float32(1 / one if is_divisor and one else one)
    return Coded(codes, layout.packed == 2, scale, factor)  # noqa: PLR2004  codes in a byte


def _is_formed(part: Stored, header: TensorHeader, out: int, width: int) -> bool:
    """Return whether a tensor holds numbers, in a shape that its layout knows."""
    return is_number(header.dtype) and header.shape in part.shapes(out, width)


def read_rows(weight: Coded, stored: StoredTensors, num_rows: int) -> Weight:
    """Return the first rows of a weight, with all of its steps."""
    out = weight.codes.shape[0]
    last = min(num_rows, out)
    codes = stored.read(weight.codes, (0, last)).reshape(last, -1)
    return Weight(codes, weight.is_packed, read_steps(weight, stored), out)


def read_steps(weight: Coded, stored: StoredTensors) -> Floats:
    """Return all steps of a weight, the global scale in them, as a matrix."""
    content, dtype = stored.read(weight.scale), stored.headers[weight.scale.tensor].dtype
    scale = to_floats(content, dtype).reshape(weight.scale.shape) * weight.factor
    if scale.size == 1:
        return scale.reshape(1, 1)
    if scale.ndim == 4:  # noqa: PLR2004  modelopt's tiles are [rows, 1, columns, 1]
        return scale[:, 0, :, 0]
    return scale.reshape(weight.codes.shape[0], 1) if scale.ndim == 1 else scale
