"""What is seen in the bytes of one tensor, piece by piece.

Scales are looked at closely; of all other tensors whether they are finite, how large the largest
FP8 code is and whether there is anything but zeros. All of that is integer arithmetic on the bits,
at about the speed of a read.

Source: IEEE 754; for E4M3 and E8M0 the OCP Microscaling formats, version 1.0.
"""

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.verify.modules import EXPONENTS, is_scale
from harness.verify.stored import to_floats

_MARK_BYTES = 1 << 12
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_FLOAT32_BYTES = 4
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
_E4M3_NAN = 0x7F
_E8M0_NAN = 0xFF
_INFINITE = {"BF16": (np.int16, 0x7F80), "F16": (np.int16, 0x7C00), "F32": (np.int32, 0x7F800000)}
"""The bits of infinity, as an integer: those of NaN are above it, and a sign comes on top."""
_NUMBERS = frozenset({*_FLOATS, "F8_E4M3"})
"""Types of which each value is looked at."""
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


def facts_of(name: str, dtype: str, piece: _Bytes) -> Facts:
    """Return what is seen in a piece of a tensor; the first piece makes the mark."""
    return (_scale_facts if is_scale(name, dtype) else _weight_facts)(piece, dtype)


def is_settled(facts: Facts, name: str, dtype: str) -> bool:
    """Return whether no more of a tensor can change what was seen: codes that share bytes."""
    return not facts.is_zero and dtype not in _NUMBERS and not is_scale(name, dtype)


def marked(facts: Facts, piece: _Bytes) -> Facts:
    """Return the facts of a tensor's first piece with its mark."""
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
        is_number = magnitudes < _E4M3_NAN
        num_non_finite = piece.size - int(is_number.sum())
        largest = int(magnitudes.max(where=is_number, initial=0))
        return Facts(num_non_finite=num_non_finite, largest_code=largest)
    if dtype not in _FLOATS or _is_finite(piece, dtype):
        return Facts(is_zero=is_zero)
    return Facts(num_non_finite=int((~np.isfinite(_values(piece, dtype))).sum()))


def _is_finite(piece: _Bytes, dtype: str) -> bool:
    """Return whether no exponent is all ones."""
    if dtype not in _INFINITE:
        return bool(np.isfinite(piece.view(np.float64)).all())
    signed, infinity = _INFINITE[dtype]
    bits = piece.view(signed)
    negative = infinity + (1 << (8 * bits.itemsize - 1))
    unsigned = piece.view(f"u{bits.itemsize}")
    return int(bits.max()) < infinity and int(unsigned.max()) < negative


def _scale_facts(piece: _Bytes, dtype: str) -> Facts:
    if dtype == "F32" and piece.size == _FLOAT32_BYTES:
        return _scalar_facts(struct.unpack("<f", piece.data)[0])
    if dtype in {"U8", EXPONENTS}:  # powers of two, E8M0: no sign and no zero
        return Facts(num_non_finite=int((piece == _E8M0_NAN).sum()))
    if dtype == "F8_E4M3":
        low, high = int(piece.min()), int(piece.max())
        if low > 0 and high < _E4M3_NAN:  # codes of positive numbers are in their order
            return Facts(_of_e4m3(low), _of_e4m3(high), largest_code=high)
    elif dtype not in _FLOATS:
        return Facts()
    return _value_facts(_values(piece, dtype))


def _values(piece: _Bytes, dtype: str) -> NDArray[np.floating]:
    """Return the numbers, those of 64 bits as they are."""
    return piece.view(np.float64) if dtype == "F64" else to_floats(piece, dtype)


def _value_facts(values: NDArray[np.floating]) -> Facts:
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return Facts(num_non_finite=values.size)
    return Facts(
        float(finite.min()),
        float(finite.max()),
        values.size - finite.size,
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
