"""What a safetensors file says it holds: the one reader of headers, as strict as the package.

A file is 8 bytes (length of the header, little-endian), a JSON header, then the tensors' bytes,
without a gap. The header is read here and not by the safetensors package, because a file that was
cut short by an interrupted download must be told apart from one that never was a safetensors
file, and a verifier must go on and say what is wrong. What the package refuses is refused here;
a test holds the two against each other. No tensor is read.

Source: https://github.com/huggingface/safetensors, README, section "Format", and
safetensors/src/tensor.rs (`read_metadata`, `Metadata::validate`) of version 0.8.0.
"""

import gc
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import ReasonCode, UnreadableError
from harness.reading import bounds
from harness.reading.json_texts import parse
from harness.reading.opened import as_utf8, open_regular, readable
from harness.reading.values import refuse_beyond

DTYPE_BITS: Mapping[str, int] = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "C64": 64,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}
"""Element types of safetensors, as headers spell them."""

_LENGTH_BYTES = 8
_LFS_POINTER = b"version "
_METADATA = "__metadata__"
_LARGEST = 2**64 - 1
"""Of the package's whole numbers."""
_DIGITS = len(str(_LARGEST))


class StoredTensor(NamedTuple):
    """One tensor of a header."""

    dtype: str
    """A key of DTYPE_BITS."""
    shape: tuple[int, ...]
    begin: int
    """First byte of its data, counted from the beginning of all data."""
    end: int


class WeightsHeader(NamedTuple):
    """What a safetensors file says it holds."""

    tensors: Mapping[str, StoredTensor]
    """In the order of their bytes; empty where the header cannot be read."""
    data_start: int
    """Where the data begins in the file."""
    problem: UnreadableError | None
    """What is wrong with the file; its data must not be read then."""


def read_weights_header(path: Path) -> WeightsHeader:
    """Return the header of a safetensors file that is whole.

    Raises:
        UnreadableError: it is none; with the reason TRUNCATED_FILE where it ends early.
    """
    header = examine_weights(path)
    if header.problem is not None:
        raise header.problem
    return header


def examine_weights(path: Path) -> WeightsHeader:
    """Return what can be read of the header of a file, and what is wrong with the file."""
    where = f"'{path}'"
    try:
        with readable(path), open_regular(path) as file:
            file_bytes = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(_LENGTH_BYTES), file_bytes, where)
            tensors = parse_weights_header(file.read(length), where)
    except UnreadableError as error:
        return WeightsHeader({}, 0, error)
    data_start = _LENGTH_BYTES + length
    wanted = data_start + max((one.end for one in tensors.values()), default=0)
    return WeightsHeader(tensors, data_start, _wrong_length(where, file_bytes, wanted))


def _wrong_length(where: str, file_bytes: int, wanted: int) -> UnreadableError | None:
    if file_bytes < wanted:
        return _truncated(where, file_bytes, wanted)
    if file_bytes > wanted:
        return _no_safetensors(where, f"{file_bytes - wanted} bytes follow its last tensor")
    return None


def parse_weights_header(text: bytes, where: str) -> Mapping[str, StoredTensor]:
    """Return the tensors of a header, in the order of their bytes.

    Raises:
        UnreadableError: the safetensors package would refuse it.
    """
    if not text.startswith(b"{"):
        raise _unreadable(where, "it does not begin with '{'")
    with _without_collecting():
        tensors = _tensors(text, where)
        ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    position = 0
    for name, tensor in ordered.items():
        if tensor.begin != position:
            what = "overlaps the one before it" if tensor.begin < position else "leaves a gap"
            raise _no_safetensors(where, f"'{name}' {what}, at byte {tensor.begin} of the data")
        position = tensor.end
    return ordered


@contextmanager
def _without_collecting() -> Iterator[None]:
    """Keep the garbage collector off a million objects that all stay: it takes half of the time."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _tensors(text: bytes, where: str) -> Mapping[str, StoredTensor]:
    """Return the tensors of a header, in its order."""
    try:
        header = parse(as_utf8(text, where), where, **_NUMBERS)
        if _HALF_PAIR.search(text):  # most headers have none, and are not gone through
            refuse_beyond(header, where)
    except UnreadableError as error:
        raise _unreadable(where, error.why) from error
    assert isinstance(header, dict)  # noqa: S101 -- it begins with a brace
    _check_metadata(header.pop(_METADATA, None), where)
    return {name: _tensor(name, value, where) for name, value in header.items()}


def _header_length(prefix: bytes, file_bytes: int, where: str) -> int:
    if prefix == _LFS_POINTER:
        raise UnreadableError(where, "is a Git LFS pointer, not weights: run `git lfs pull` there")
    length = int.from_bytes(prefix, "little")
    if len(prefix) == _LENGTH_BYTES and length > bounds.HEADER_BYTES:
        raise _no_safetensors(where, f"its header's length makes no sense: {length} bytes")
    if len(prefix) < _LENGTH_BYTES or _LENGTH_BYTES + length > file_bytes:
        raise _truncated(where, file_bytes, _LENGTH_BYTES + length)
    return length


def _whole(digits: str) -> int:
    """Return a whole number; the package knows no sign, not even that of -0."""
    if digits[0] == "-" or len(digits) > _DIGITS:
        raise ValueError(digits)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(digits)
    return number


_NUMBERS: Mapping[str, Callable[[str], object]] = {
    "parse_int": _whole,
    "parse_float": _finite,
    "parse_constant": _finite,
}
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


def _check_metadata(metadata: object, where: str) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _unreadable(where, f"'{_METADATA}' is no mapping of texts to texts")


def _tensor(name: str, value: Any, where: str) -> StoredTensor:  # noqa: ANN401 -- of any shape
    """Return one tensor, whose bytes fit its type and shape."""
    if len(name) > bounds.NAME_CHARACTERS:
        raise _no_safetensors(where, f"the tensor's name '{name[:80]}...' is too long")
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _no_safetensors(where, f"'{name}' has the unknown dtype '{dtype!s:.40}'")
    if shape is None or not _are_whole(shape) or len(shape) > bounds.DIMENSIONS:
        raise _unreadable(where, f"the shape of '{name}' is {shape!s:.80}")
    if offsets is None or not _are_whole(offsets) or len(offsets) != 2:  # noqa: PLR2004 -- begin and end
        raise _unreadable(where, f"the data_offsets of '{name}' are {offsets!s:.80}")
    begin, end = offsets
    if end < begin or end - begin != _num_bytes(dtype, shape):
        raise _no_safetensors(where, f"the bytes of '{name}' do not fit its shape {shape!s:.80}")
    return StoredTensor(dtype, tuple(shape), begin, end)


def _are_whole(values: Any) -> bool:  # noqa: ANN401 -- of any shape
    """Return whether this is a list of whole numbers from 0 on; JSON's true is none."""
    if not isinstance(values, list):
        return False
    for value in values:  # noqa: SIM110 -- a million times, and all() is twice as slow
        if type(value) is not int or value > _LARGEST:
            return False
    return True


def _num_bytes(dtype: str, shape: list[int]) -> int | None:
    """Return the bytes of a tensor; None where they are none, or the package's numbers overflow."""
    num_elements = 1
    for size in shape:
        num_elements *= size
        if num_elements > _LARGEST:
            return None
    num_bits = num_elements * DTYPE_BITS[dtype]
    return None if num_bits > _LARGEST or num_bits % 8 else num_bits // 8


def _truncated(where: str, file_bytes: int, expected_bytes: int) -> UnreadableError:
    why = f"ends {expected_bytes - file_bytes} bytes early: it was cut off"
    return UnreadableError(where, why, reason=ReasonCode.TRUNCATED_FILE)


def _no_safetensors(where: str, why: str) -> UnreadableError:
    return UnreadableError(where, f"is no valid safetensors file: {why}")


def _unreadable(where: str, why: str) -> UnreadableError:
    return _no_safetensors(where, f"its header cannot be read: {why}")
