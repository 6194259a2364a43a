"""A source in MXFP4, as the makers of gpt-oss publish it, read as the weights that it means.

Written apart from what quantizes such a source: `NAME_blocks` (E, O, B, 16) holds two codes a byte,
the even column in the low half, `NAME_scales` (E, O, B) exponents plus 127; `NAME` (E, I, O) is
what they mean, in bfloat16.
"""

import math
from collections.abc import Mapping

import numpy as np

from harness.artifacts import TensorHeader
from harness.verify.stored import (
    BYTE_VALUES,
    Bytes,
    StoredPart,
    StoredTensors,
    copy_strided,
    strided_bytes,
)

BLOCKS, SCALES = "_blocks", "_scales"
_WIDTH, _BYTES, _ITEM_BYTES = 32, 16, 2
_DIMS = 3
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_MAGNITUDES, *(-one for one in _MAGNITUDES)], np.float32)


class Pairs:
    """The pairs of tensors of a folder, each read as the one that it means."""

    def __init__(self, headers: Mapping[str, TensorHeader], stored: StoredTensors) -> None:
        """Find them by names and shapes; nothing is read."""
        self._headers, self._stored = headers, stored
        found = (name.removesuffix(BLOCKS) for name in headers if name.endswith(BLOCKS))
        self.names = frozenset(name for name in found if self._is_pair(name))
        self._last: tuple[str, int, Bytes] | None = None

    def _is_pair(self, name: str) -> bool:
        blocks, scales = self._headers[f"{name}{BLOCKS}"], self._headers.get(f"{name}{SCALES}")
        return (
            scales is not None
            and len(scales.shape) == _DIMS
            and blocks.shape == (*scales.shape, _BYTES)
        )

    def unpacked(self) -> Mapping[str, TensorHeader]:
        """Return all headers, with one tensor in place of each pair."""
        found: dict[str, TensorHeader] = {}
        for name, header in self._headers.items():
            whole = name.removesuffix(BLOCKS).removesuffix(SCALES)
            if whole in self.names:
                found[whole] = self._header_of(whole)
            else:
                found[name] = header
        return found

    def _header_of(self, name: str) -> TensorHeader:
        blocks = self._headers[f"{name}{BLOCKS}"]
        num_experts, num_rows, num_blocks, _ = blocks.shape
        shape = (num_experts, num_blocks * _WIDTH, num_rows)
        return TensorHeader(
            shard=blocks.shard,
            dtype="BF16",
            shape=shape,
            num_bytes=math.prod(shape) * _ITEM_BYTES,
            offset=blocks.offset,
        )

    def fill(self, content: Bytes, part: StoredPart, start: int) -> None:
        """Do what `StoredTensors.fill` does, for a part of what a pair means."""
        begin, num_bytes = part.start + start, content.size
        if part.strides is not None:
            begin, num_bytes = strided_bytes(part, _ITEM_BYTES, start, content.size)
        _, *matrix = self._header_of(part.tensor).shape
        each = math.prod(matrix) * _ITEM_BYTES
        first, last = begin // each, (begin + num_bytes - 1) // each
        slabs = [self._expert(part.tensor, expert) for expert in range(first, last + 1)]
        slab = slabs[0] if len(slabs) == 1 else np.concatenate(slabs)
        span = slab[begin - first * each :][:num_bytes]
        if part.strides is None:
            content[:] = span
        else:
            copy_strided(content, span, part, _ITEM_BYTES)

    def _expert(self, name: str, expert: int) -> Bytes:
        """Return the bytes of an expert's matrix (I, O), which is asked for several times."""
        last = self._last
        if last is None or last[:2] != (name, expert):
            last = self._last = (name, expert, self._unpack(name, expert))
        return last[2]

    def _unpack(self, name: str, expert: int) -> Bytes:
        blocks = self._read(f"{name}{BLOCKS}", expert)
        scales = self._read(f"{name}{SCALES}", expert)
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, _WIDTH)
        values = _VALUES[codes] * BYTE_VALUES["U8"][scales][..., None]
        turned = np.ascontiguousarray(values.reshape(scales.shape[0], -1).T)
        return (turned.view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8)

    def _read(self, name: str, expert: int) -> Bytes:
        shape = self._headers[name].shape[1:]
        content = np.empty(math.prod(shape), np.uint8)
        self._stored.fill_raw(content, name, expert * content.size)
        return content.reshape(shape)
