"""Read a safetensors file back, and compare it with what was meant.

The safetensors package opens it and says what it holds; every byte is then read once, in the order
of the file. Each tensor must have the hash of what was handed over, and the file gets its sha256
from the same bytes. The former is XXH3, which finds any accident at the speed of memory; sha256 is
several times slower than a disk and is computed once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.models import header_dtype
from harness.reading import parse_weights_header, refused_as

_PIECE_BYTES = 8 << 20
"""Read at a time: each read and each hash asks for the interpreter, which the model needs."""


class TensorHash(NamedTuple):
    """A tensor by its type and its bytes: as it was meant, or as it was read back."""

    type: TensorType
    xxh3: bytes
    """XXH3 of its bytes, 128 bits."""


def type_of(tensor: Tensor) -> TensorType:
    """Return the type and shape, as a header spells them."""
    return TensorType(header_dtype(tensor.dtype), tuple(tensor.shape))


class FoundFile(NamedTuple):
    """A file as it was read back."""

    sha256: str
    tensors: Mapping[str, TensorHash]


def read_file(path: Path) -> FoundFile:
    """Read a file of weights, every byte once.

    Raises:
        StageError: it is no whole safetensors file.
    """
    types = _types(path)
    file_hash, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:

        def next_piece() -> memoryview:
            count = file.readinto(piece)
            file_hash.update(piece[:count])
            return piece[:count]

        header = file.read(8)
        header += file.read(int.from_bytes(header, "little"))
        file_hash.update(header)
        sizes = _sizes(header[8:])
        hashes = list(_hash_each(sizes.values(), next_piece))
        while next_piece():  # a file that has become longer since
            pass
    tensors = {name: TensorHash(types[name], one) for name, one in zip(sizes, hashes, strict=True)}
    return FoundFile(file_hash.hexdigest(), tensors)


def check_read_back(path: Path, found: FoundFile, meant: Mapping[str, TensorHash]) -> None:
    """Compare names, types, shapes and the bytes of all tensors with what was meant.

    Raises:
        StageError: they differ.
    """
    if found.tensors.keys() != meant.keys():
        raise _mismatch(path, f"it holds {len(found.tensors)} tensors instead of {len(meant)}")
    for name, wanted in meant.items():
        is_type, xxh3 = found.tensors[name]
        if is_type != wanted.type:
            raise _mismatch(path, f"'{name}' is {is_type.dtype} {list(is_type.shape)}")
        if xxh3 != wanted.xxh3:
            raise _mismatch(path, f"the bytes of '{name}' differ")


def _types(path: Path) -> Mapping[str, TensorType]:
    """Return what the safetensors package says a file holds."""
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
            return {
                name: TensorType(one.get_dtype(), tuple(one.get_shape()))
                for name, one in slices.items()
            }
    except SafetensorError as error:
        raise _mismatch(path, str(error)) from error


def _sizes(header: bytes) -> Mapping[str, int]:
    """Return the bytes of each tensor, in the order of the file; the package suffers no gap."""
    with refused_as(StageError, "Check the disk.", reason=ReasonCode.READ_BACK_MISMATCH):
        entries = parse_weights_header(header, "what was written")
    return {name: entry.end - entry.begin for name, entry in entries.items()}


def _hash_each(sizes: Iterable[int], next_piece: Callable[[], memoryview]) -> Iterator[bytes]:
    """Yield the XXH3 of parts that follow each other; of what is left where the file ends."""
    unread = memoryview(b"")
    for size in sizes:
        found, left = xxhash.xxh3_128(), size
        while left and (unread or (unread := next_piece())):
            taken = unread[:left]
            found.update(taken)
            left, unread = left - len(taken), unread[len(taken) :]
        yield found.digest()


def joined(header: bytes, hashes: Iterable[bytes]) -> str:
    """Return what a manifest says of a file: the XXH3 of the XXH3 of its parts.

    Args:
        header: all bytes before the first tensor.
        hashes: of the tensors, in the order of the file.
    """
    return xxhash.xxh3_128_hexdigest(xxhash.xxh3_128_digest(header) + b"".join(hashes))


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file; hashlib.file_digest reads pieces thirty times smaller."""
    found, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            found.update(piece[:count])
    return found.hexdigest()


def _mismatch(path: Path, what: str) -> StageError:
    message = f"'{path}' reads back differently from what was written: {what}. Check the disk."
    return StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
