"""Read a safetensors file back, and compare it with what was meant.

The safetensors package opens it; every byte is then read once, in the order of the file. Its header
must be the one that was meant, and each tensor have the hash of what was handed over; the file gets
its sha256 from the same bytes. The former is XXH3, which finds any accident at the speed of memory;
sha256 is several times slower than a disk and is computed once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import xxhash
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.export.layout import ShardLayout
from harness.models import header_dtype
from harness.reading import read_weights_header, refused_as

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
    xxh3: Sequence[bytes]
    """Of the bytes of each tensor, 128 bits, in the order of the file."""


def read_file(path: Path, meant: ShardLayout | None = None) -> FoundFile:
    """Read a file of weights, every byte once.

    Args:
        path: of the file.
        meant: what it should hold, if that is known; what else it holds is read all the same.

    Raises:
        StageError: it is no whole safetensors file.
    """
    with _refusing(path), safe_open(path, framework="np"):
        pass
    file_hash, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:

        def next_piece() -> memoryview:
            count = file.readinto(piece)
            file_hash.update(piece[:count])
            return piece[:count]

        header = file.read(8)
        header += file.read(int.from_bytes(header, "little"))
        file_hash.update(header)
        types = meant.tensors if meant and header == meant.header else _types(path)
        hashes = list(_hash_each((one.num_bytes for one in types.values()), next_piece))
        while next_piece():  # a file that has become longer since
            pass
    return FoundFile(file_hash.hexdigest(), header, hashes)


def check_read_back(
    path: Path, found: FoundFile, meant: ShardLayout, xxh3: Sequence[bytes]
) -> None:
    """Compare names, types, shapes and the bytes of all tensors with what was meant.

    Args:
        path: of the file.
        found: what was read.
        meant: what it should hold.
        xxh3: hashes that the tensors should have, in the order of the file.

    Raises:
        StageError: they differ.
    """
    if found.header != meant.header:
        raise _mismatch(path, _difference(_types(path), meant.tensors))
    for name, is_now, wanted in zip(meant.tensors, found.xxh3, xxh3, strict=True):
        if is_now != wanted:
            raise _mismatch(path, f"the bytes of '{name}' differ")


def _difference(found: Mapping[str, TensorType], meant: Mapping[str, TensorType]) -> str:
    """Return how two headers differ that are not the same."""
    if found.keys() != meant.keys():
        return f"it holds {len(found)} tensors instead of {len(meant)}"
    other = next((name for name, one in meant.items() if found[name] != one), None)
    if other is None:
        return "its header has other bytes"
    return f"'{other}' is {found[other].dtype} {list(found[other].shape)}"


def _types(path: Path) -> Mapping[str, TensorType]:
    """Return what a file holds, in its order."""
    with refused_as(StageError, "Check the disk.", reason=ReasonCode.READ_BACK_MISMATCH):
        tensors = read_weights_header(path).tensors
    return {name: TensorType(one.dtype, one.shape) for name, one in tensors.items()}


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise _mismatch(path, str(error)) from error


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
