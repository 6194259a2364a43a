"""What a stored weight means: codes times steps, for every format that the checks know.

All formats come down to one shape: a code a weight (E2M1, two in a byte, or E4M3) and a matrix of
steps, each for a tile of the weight: 1 x 16 or 1 x 32 neighbours, a row, 128 x 128, or all of it.
Written apart from harness.formats, so that a mistake in the writer is not repeated here.

Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/*.py; compressed-tensors 0.17.0,
compressors/nvfp4_quantized.py; OCP Microscaling formats, version 1.0.
"""

from typing import NamedTuple

import numpy as np

from harness.verify.layouts import DIVISORS, Layout
from harness.verify.stored import E4M3_VALUES, Bytes, Floats, StoredTensors

_TILE = 128
_E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], np.float32)
_SIGNED = np.concatenate([_E2M1, -_E2M1])
_PAIRS = (
    np.stack([np.tile(_SIGNED, 16), np.repeat(_SIGNED, 16)], axis=-1).copy().view(np.uint64).ravel()
)
"""The two values of each byte, the low half first, as one item so that one look-up finds both."""


class Weight(NamedTuple):
    """A quantized weight [out, in] whose codes are in memory."""

    codes: Bytes
    """[out, in], or [out, in / 2] where two codes share a byte."""
    is_packed: bool
    steps: Floats
    """[out / tile rows, in / tile columns]; a tile is a part of a row, 128 x 128, or everything."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (out, in)."""
        return self.codes.shape[0], self.codes.shape[1] * (2 if self.is_packed else 1)

    def rows(self, first: int, last: int) -> Floats:
        """Return the values of some rows."""
        codes, out = self.codes[first:last], self.codes.shape[0]
        table = _PAIRS if self.is_packed else E4M3_VALUES
        values: Floats = table.take(codes).view(np.float32)
        if self.steps.size == 1:
            return np.multiply(values, self.steps.ravel())
        if self.steps.shape[0] == out:
            steps, width = self.steps[first:last], self.shape[1] // self.steps.shape[1]
        else:
            tiles = self.steps[first // _TILE : -(-last // _TILE)]
            begin = first % _TILE
            steps = np.repeat(tiles, _TILE, axis=0)[begin : begin + last - first]
            width = _TILE
        if width * steps.shape[1] != values.shape[1]:
            return values * np.repeat(steps, width, axis=1)[:, : values.shape[1]]
        tiled: Floats = values.reshape(*steps.shape, width) * steps[:, :, None]
        return tiled.reshape(values.shape)


def can_dequantize(algo: str | None) -> bool:
    """Return whether the weights of an algorithm can be compared with their source.

    AWQ multiplies channels of a layer and divides them in the layer before, so that its weights
    are not those of the source.
    """
    return algo is not None and "AWQ" not in algo


def read_weight(
    content: memoryview, module: str, layout: Layout, stored: StoredTensors
) -> Weight | None:
    """Return a quantized weight, its scales read now; None where one is missing or misshapen."""
    names = {role: f"{module}.{part.leaf}" for role, part in layout.tensors.items()}
    wanted = [role for role in ("weight_scale", "global_scale") if role in names]
    if any(names[role] not in stored.headers for role in wanted):
        return None
    header = stored.headers[names["weight"]]
    codes = np.frombuffer(content, np.uint8).reshape(header.shape)
    out, width = header.shape[0], header.shape[1] * layout.packed
    scale = layout.tensors["weight_scale"]
    shape = stored.headers[names["weight_scale"]].shape
    if shape not in scale.shapes(out, width):
        return None
    steps = _as_matrix(stored.floats(stored.whole(names["weight_scale"])), out)
    if "global_scale" in names:
        one = float(stored.floats(stored.whole(names["global_scale"])).ravel()[0])
        is_divisor = layout.leaf("global_scale") in DIVISORS
        steps = steps * np.float32(1 / one if is_divisor and one else one)
    return Weight(codes, layout.packed == 2, steps)  # noqa: PLR2004  codes in a byte


def _as_matrix(scale: Floats, out: int) -> Floats:
    if scale.size == 1:
        return scale.reshape(1, 1)
    if scale.ndim == 4:  # noqa: PLR2004  modelopt's tiles are [rows, 1, columns, 1]
        return scale[:, 0, :, 0]
    return scale.reshape(out, 1) if scale.ndim == 1 else scale
