"""A source that its makers publish in MXFP4 or in FP8, read as the weights that it means.

Written apart from what quantizes such a source. MXFP4: `NAME_blocks` (E, O, B, 16) holds two codes
a byte, the even column in the low half, `NAME_scales` (E, O, B) exponents plus 127; `NAME`
(E, I, O) is what they mean, in bfloat16. FP8: `NAME` (O, I) holds codes, `NAME_scale_inv` a factor
for each block of rows and columns.
"""

import math
from collections.abc import Mapping

import numpy as np

from harness.artifacts import TensorHeader
from harness.verify.shards import ITEM_BYTES
from harness.verify.stored import (
    BYTE_VALUES,
    Bytes,
    Floats,
    StoredPart,
    StoredTensors,
    copy_strided,
    is_number,
    strided_bytes,
    to_floats,
)

BLOCKS, SCALES, INVERSE = "_blocks", "_scales", "_scale_inv"
_WIDTH, _BYTES, _ITEM_BYTES = 32, 16, 2
_DIMS = 3
_MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_MAGNITUDES, *(-one for one in _MAGNITUDES)], np.float32)


class Pairs:
    """The pairs of tensors of a folder, each read as the one that it means."""

    def __init__(self, config: Mapping[str, object], stored: StoredTensors) -> None:
        """Find them by names and shapes, if config.json states such a model; nothing is read."""
        self._headers, self._stored = stored.headers, stored
        declared = config.get("quantization_config")
        method = declared.get("quant_method") if isinstance(declared, Mapping) else None
        block = declared.get("weight_block_size") if isinstance(declared, Mapping) else None
        self._block = tuple(block) if method == "fp8" and isinstance(block, list) else ()
        self._scales: dict[str, str] = {}
        """The name of the scales, by that of what is meant."""
        for name in self._headers:
            whole = name.removesuffix(BLOCKS)
            if method == "mxfp4" and whole != name and self._is_mxfp4(whole):
                self._scales[whole] = f"{whole}{SCALES}"
            elif self._block and self._is_fp8(name):
                self._scales[name] = f"{name}{INVERSE}"
        self.names = self._scales.keys()
        self._last: tuple[str, int, Bytes] | None = None

    def _is_mxfp4(self, name: str) -> bool:
        blocks, scales = self._headers[f"{name}{BLOCKS}"], self._headers.get(f"{name}{SCALES}")
        return (
            scales is not None
            and len(scales.shape) == _DIMS
            and blocks.shape == (*scales.shape, _BYTES)
        )

    def _is_fp8(self, name: str) -> bool:
        codes, scales = self._headers[name], self._headers.get(f"{name}{INVERSE}")
        if scales is None or codes.dtype != "F8_E4M3" or not is_number(scales.dtype):
            return False
        sizes = zip(codes.shape, self._block, strict=False)
        return scales.shape == tuple(-(-size // each) for size, each in sizes)

    def unpacked(self) -> Mapping[str, TensorHeader]:
        """Return all headers, with one tensor in place of each pair."""
        found: dict[str, TensorHeader] = {}
        scales = frozenset(self._scales.values())
        for name, header in self._headers.items():
            whole = name if name in self.names else name.removesuffix(BLOCKS)
            if whole in self.names:
                found[whole] = self._header_of(whole)
            elif name not in scales:
                found[name] = header
        return found

    def _header_of(self, name: str) -> TensorHeader:
        header = self._headers.get(name)
        if header is None:
            header = self._headers[f"{name}{BLOCKS}"]
            num_experts, num_rows, num_blocks, _ = header.shape
            shape: tuple[int, ...] = (num_experts, num_blocks * _WIDTH, num_rows)
        else:
            shape = header.shape
        return TensorHeader(
            shard=header.shard,
            dtype="BF16",
            shape=shape,
            num_bytes=math.prod(shape) * _ITEM_BYTES,
            offset=header.offset,
        )

    def fill(self, content: Bytes, part: StoredPart, start: int) -> None:
        """Do what `StoredTensors.fill` does, for a part of what a pair means."""
        begin, num_bytes = part.start + start, content.size
        if part.strides is not None:
            begin, num_bytes = strided_bytes(part, _ITEM_BYTES, start, content.size)
        each = math.prod(self._header_of(part.tensor).shape[-2:]) * _ITEM_BYTES
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
        if name in self._headers:
            return _rounded(self._fp8(name))
        blocks = self._read(f"{name}{BLOCKS}", expert)
        scales = self._read(f"{name}{SCALES}", expert)
        codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, _WIDTH)
        values = _VALUES[codes] * BYTE_VALUES["U8"][scales][..., None]
        return _rounded(np.ascontiguousarray(values.reshape(scales.shape[0], -1).T))

    def _fp8(self, name: str) -> Floats:
        """Return the values [O, I] of a weight in FP8."""
        (height, width), (rows, columns) = self._headers[name].shape, self._block
        header = self._headers[f"{name}{INVERSE}"]
        content = np.empty(math.prod(header.shape) * ITEM_BYTES[header.dtype], np.uint8)
        self._stored.fill_raw(content, f"{name}{INVERSE}", 0)
        steps = to_floats(content, header.dtype).reshape(header.shape)
        steps = np.repeat(np.repeat(steps, rows, axis=0)[:height], columns, axis=1)[:, :width]
        codes = np.empty(height * width, np.uint8)
        self._stored.fill_raw(codes, name, 0)
        return BYTE_VALUES["F8_E4M3"][codes].reshape(height, width) * steps

    def _read(self, name: str, expert: int) -> Bytes:
        shape = self._headers[name].shape[1:]
        content = np.empty(math.prod(shape), np.uint8)
        self._stored.fill_raw(content, name, expert * content.size)
        return content.reshape(shape)


def _rounded(values: Floats) -> Bytes:
    """Return the bytes of values as bfloat16, rounded to the nearest, halves to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + ((bits >> 16) & 1)
    return (bits >> 16).astype(np.uint16).reshape(-1).view(np.uint8)
