"""Read a safetensors file back, and compare it with what was meant.

The safetensors package opens it and says what it holds; every byte is then read once, in the order
of the file. Each tensor must have the hash of what was handed over, and the file gets its sha256
from the same bytes. A tensor's hash is XXH3, which finds any accident at the speed of memory;
sha256 is several times slower than a disk and is computed once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.export.layout import ShardLayout
from harness.models import header_dtype

_PIECE_BYTES = 8 << 20
"""Read at a time: each read and each hash asks for the interpreter, which the model needs."""


def type_of(tensor: Tensor) -> TensorType:
    """Return the type and shape, as a header spells them."""
    return TensorType(header_dtype(tensor.dtype), tuple(tensor.shape))


class FoundFile(NamedTuple):
    """A file as it was read back."""

    sha256: str
    header: bytes
    """Everything before the data."""
    tensors: Mapping[str, TensorType]
    """In the order of their bytes, as the safetensors package has it."""
    xxh3: Sequence[bytes]
    """Of the bytes of each tensor, 128 bits, in the same order."""


def read_file(path: Path) -> FoundFile:
    """Read a file of weights, every byte once.

    Raises:
        StageError: it is no whole safetensors file.
    """
    tensors = _tensors(path)
    file_hash, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:

        def next_piece() -> memoryview:
            count = file.readinto(piece)
            file_hash.update(piece[:count])
            return piece[:count]

        header = file.read(8)
        header += file.read(int.from_bytes(header, "little"))
        file_hash.update(header)
        hashes = list(_hash_each((one.num_bytes for one in tensors.values()), next_piece))
        while next_piece():  # a file that has become longer since
            pass
    return FoundFile(file_hash.hexdigest(), header, tensors, hashes)


def check_read_back(
    path: Path, found: FoundFile, meant: ShardLayout, xxh3: Sequence[bytes]
) -> None:
    """Compare names, types, shapes and bytes of all tensors, and the header, with what was meant.

    Args:
        path: of the file.
        found: what was read.
        meant: what it should hold.
        xxh3: hashes that the tensors should have, in the order of the file.

    Raises:
        StageError: they differ.
    """
    if found.tensors.keys() != meant.tensors.keys():
        other = next(iter(found.tensors.keys() ^ meant.tensors.keys()))
        number = f"{len(found.tensors)} tensors instead of {len(meant.tensors)}"
        raise _mismatch(path, f"it holds {number}, and '{other}' is only in one")
    if found.tensors != meant.tensors:
        name, one = next(
            pair for pair in found.tensors.items() if pair not in meant.tensors.items()
        )
        raise _mismatch(path, f"'{name}' is {one.dtype} {list(one.shape)}")
    if found.header != meant.header:
        raise _mismatch(path, "its header has other bytes")
    is_now = dict(zip(found.tensors, found.xxh3, strict=True))  # by name: empty ones have no order
    for name, wanted in zip(meant.tensors, xxh3, strict=True):
        if is_now[name] != wanted:
            raise _mismatch(path, f"the bytes of '{name}' differ")


def _tensors(path: Path) -> Mapping[str, TensorType]:
    """Return what the safetensors package says a file holds; it suffers no gap."""
    try:
        with safe_open(path, framework="np") as file:
            names = file.offset_keys()
            slices = map(file.get_slice, names)
            types = [TensorType(one.get_dtype(), tuple(one.get_shape())) for one in slices]
    except SafetensorError as error:
        raise _mismatch(path, str(error)) from error
    return dict(zip(names, types, strict=True))


def _hash_each(sizes: Iterable[int], next_piece: Callable[[], memoryview]) -> Iterator[bytes]:
    """Yield the XXH3 of parts that follow each other; of what is left where the file ends."""
    unread = memoryview(b"")
    for size in sizes:
        if size <= len(unread):
            yield xxhash.xxh3_128_digest(unread[:size])
            unread = unread[size:]
            continue
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
