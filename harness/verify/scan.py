"""One pass over the data: numbers about each tensor, and the hash of each file.

Every byte is read once, in the order of the file, in pieces that fit a core's cache. Scales are
looked at closely; of all other tensors whether they are finite, how large the largest FP8 code is
and whether there is anything but zeros. All of that is integer arithmetic on the bits, at about
the speed of the read itself. Files are hashed only where a manifest says what the hash must be,
and then in a second thread, because sha256 is slower than reading.

Source: IEEE 754; for E4M3 and E8M0 the OCP Microscaling formats, version 1.0.
"""

import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.verify.hashing import Hashed, Hasher
from harness.verify.modules import KV_LEAVES, SCALE_LEAVES
from harness.verify.shards import Entry, Shard

_PIECE_BYTES = 1 << 18
_BUFFER_BYTES = 1 << 16
"""Smaller than a piece, so that pieces are read past the buffer and copied once."""
_MARK_BYTES = 1 << 12
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_FLOAT32_BYTES = 4
_SMALLEST_NORMAL = torch.finfo(torch.float32).tiny
_E4M3_NAN = 0x7F
_E8M0_NAN = 0xFF
_Bytes = NDArray[np.uint8]


class Facts(NamedTuple):
    """What was seen in one tensor."""

    low: float = math.inf
    """Smallest finite value; infinite where values were not looked at."""
    high: float = -math.inf
    num_non_finite: int = 0
    num_not_positive: int = 0
    num_denormal: int = 0
    """Positive values below float32's smallest normal number, whose reciprocal may be infinite."""
    largest_code: int = 0
    """Largest magnitude among E4M3 codes: 0x7E is 448, which the largest weight is mapped to."""
    is_zero: bool = False
    """Whether there is nothing but zero bits."""
    mark: int = 0
    """Checksum of the tensor's first bytes: equal tensors have equal marks."""

    def merged(self, other: "Facts") -> "Facts":
        """Return the facts of both parts of a tensor; the mark is the first part's."""
        return Facts(
            min(self.low, other.low),
            max(self.high, other.high),
            self.num_non_finite + other.num_non_finite,
            self.num_not_positive + other.num_not_positive,
            self.num_denormal + other.num_denormal,
            max(self.largest_code, other.largest_code),
            self.is_zero and other.is_zero,
            self.mark,
        )


class ShardScan(NamedTuple):
    """What one pass over a shard found."""

    facts: dict[str, Facts]
    sha256: str | None
    """None where no manifest asked for it."""


Whole = Callable[[str, Entry, "memoryview"], None]
"""Takes the bytes of a whole tensor; they are gone after the call."""


class Pass(NamedTuple):
    """What one pass is to do besides looking at values."""

    hashed: Hashed = Hashed.NOTHING
    wanted: Mapping[str, Whole] = {}
    """Tensors that somebody has to see as a whole."""


def scan_shard(path: Path, shard: Shard, task: Pass = Pass()) -> ShardScan:  # noqa: B008 -- an immutable default
    """Read a whole shard once; no more than one piece, or one wanted tensor, is held."""
    facts: dict[str, Facts] = {}
    with path.open("rb", buffering=_BUFFER_BYTES) as file, Hasher(task.hashed) as hasher:
        hasher.update(file.read(shard.data_start))
        hasher.cut()
        position = 0
        for name, entry in sorted(shard.entries.items(), key=lambda item: item[1].start):
            hasher.update(file.read(max(entry.start - position, 0)))
            facts[name] = _scan_entry(file, name, entry, _Sinks(hasher, task.wanted.get(name)))
            hasher.cut()
            position = max(position, entry.end)
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
            hasher.cut()  # no tensor, so the hash is another one
    return ShardScan(facts, hasher.hexdigest())


class _Sinks(NamedTuple):
    """Who else wants a tensor's bytes."""

    hasher: Hasher
    whole: Whole | None


def _scan_entry(file: BinaryIO, name: str, entry: Entry, sinks: _Sinks) -> Facts:
    leaf = name.rpartition(".")[2]
    look = _scale_facts if leaf in SCALE_LEAVES or leaf in KV_LEAVES else _weight_facts
    num_bytes = entry.end - entry.start
    facts: Facts | None = None
    if sinks.whole is not None:
        content = file.read(num_bytes)
        sinks.hasher.update(content)
        sinks.whole(name, entry, memoryview(content))
        pieces: Iterator[_Bytes] = _slices(np.frombuffer(content, np.uint8))
    else:
        pieces = _pieces(file, num_bytes, sinks.hasher)
    for piece in pieces:
        found = look(piece, entry.header.dtype)
        facts = _marked(found, piece) if facts is None else facts.merged(found)
    return facts or Facts()


def _slices(content: _Bytes) -> Iterator[_Bytes]:
    for start in range(0, content.size, _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]


def _pieces(file: BinaryIO, num_bytes: int, hasher: Hasher) -> Iterator[_Bytes]:
    """Yield a tensor's bytes in one buffer that is used again."""
    buffer = bytearray(min(num_bytes, _PIECE_BYTES))
    view = memoryview(buffer)
    while num_bytes > 0:
        part = view[: min(num_bytes, len(buffer))]
        if file.readinto(part) != len(part):  # type: ignore[attr-defined]  # a buffered file
            return
        hasher.update(part)
        yield np.frombuffer(part, np.uint8)
        num_bytes -= len(part)


def _marked(facts: Facts, piece: _Bytes) -> Facts:
    if piece.size <= _FLOAT32_BYTES:
        return facts
    mark = zlib.crc32(piece[:_MARK_BYTES].tobytes()) or 1
    return facts._replace(mark=mark)


def _weight_facts(piece: _Bytes, dtype: str) -> Facts:
    is_zero = not piece[:_MARK_BYTES].any() and not piece.any()
    if dtype == "F8_E4M3":
        magnitudes = piece & _E4M3_NAN
        largest = int(magnitudes.max())
        if largest < _E4M3_NAN:
            return Facts(largest_code=largest, is_zero=is_zero)
        return Facts(num_non_finite=int((magnitudes == _E4M3_NAN).sum()))
    if dtype not in _FLOATS or _is_finite(piece, dtype):
        return Facts(is_zero=is_zero)
    values = torch.frombuffer(bytearray(piece), dtype=_FLOATS[dtype])
    return Facts(num_non_finite=int((~torch.isfinite(values)).sum()))


def _is_finite(piece: _Bytes, dtype: str) -> bool:
    """Return whether no exponent is all ones; the sign bit is shifted out."""
    match dtype:
        case "BF16":
            return int(np.left_shift(piece.view(np.uint16), 1).max()) < 0xFF00  # noqa: PLR2004  exponent of 8 bits
        case "F16":
            return int(np.left_shift(piece.view(np.uint16), 1).max()) < 0xF800  # noqa: PLR2004  exponent of 5 bits
        case "F32":
            return int(np.left_shift(piece.view(np.uint32), 1).max()) < 0xFF000000  # noqa: PLR2004  exponent of 8 bits
        case _:
            return bool(np.isfinite(piece.view(np.float64)).all())


def _scale_facts(piece: _Bytes, dtype: str) -> Facts:
    if dtype == "F32" and piece.size == _FLOAT32_BYTES:
        return _scalar_facts(struct.unpack("<f", piece.data)[0])
    if dtype == "U8":  # powers of two, E8M0: no sign and no zero
        return Facts(num_non_finite=int((piece == _E8M0_NAN).sum()))
    if dtype == "F8_E4M3":
        low, high = int(piece.min()), int(piece.max())
        if low > 0 and high < _E4M3_NAN:  # codes of positive numbers are in their order
            return Facts(_of_e4m3(low), _of_e4m3(high), largest_code=high)
        values = torch.frombuffer(bytearray(piece), dtype=torch.float8_e4m3fn).float()
    elif dtype in _FLOATS:
        values = torch.frombuffer(bytearray(piece), dtype=_FLOATS[dtype])
    else:
        return Facts()
    return _value_facts(values)


def _value_facts(values: torch.Tensor) -> Facts:
    finite = values[torch.isfinite(values)]
    if finite.numel() == 0:
        return Facts(num_non_finite=values.numel())
    return Facts(
        float(finite.min()),
        float(finite.max()),
        values.numel() - finite.numel(),
        int((finite <= 0).sum()),
        int(((finite > 0) & (finite < _SMALLEST_NORMAL)).sum()),
    )


def _of_e4m3(code: int) -> float:
    exponent, mantissa = code >> 3, code & 7
    return mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)


def _scalar_facts(value: float) -> Facts:
    if not math.isfinite(value):
        return Facts(num_non_finite=1)
    is_denormal = 0 < value < _SMALLEST_NORMAL
    return Facts(value, value, 0, int(value <= 0), int(is_denormal))
