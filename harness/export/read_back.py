"""Read a safetensors file back, and compare it with what was meant.

The safetensors package opens it and says what it holds; every byte of every tensor is then read
once, in the order of the file, and must have the sha256 of what was handed over.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.models import header_dtype

_PIECE_BYTES = 8 << 20
"""Read at a time: each read and each hash asks for the interpreter, which the model needs."""


class Meant(NamedTuple):
    """What a tensor must be when it is read back."""

    type: TensorType
    sha256: bytes


def meant_by(tensor: Tensor) -> Meant:
    """Return what must be read where `tensor` was written."""
    return Meant(type_of(tensor), hashlib.sha256(bytes_of(tensor)).digest())


def type_of(tensor: Tensor) -> TensorType:
    """Return the type and shape, as a header spells them."""
    return TensorType(header_dtype(tensor.dtype), tuple(tensor.shape))


def bytes_of(tensor: Tensor) -> memoryview:
    """Return the bytes of a tensor on the CPU in the order of its elements; copied if they must."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def bytes_of_each(tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    """Yield the same for many, which may lie in one block of memory, such as all experts' weights.

    Each of torch's functions gives the interpreter away and asks for it again, which keeps the
    thread waiting that runs the model; what is called here for each tensor does not.
    """
    blocks: dict[tuple[int, int], memoryview] = {}
    for tensor in tensors:
        if not tensor.is_contiguous():
            yield bytes_of(tensor)
            continue
        storage = tensor.untyped_storage()
        if (where := (storage.data_ptr(), storage.nbytes())) not in blocks:
            blocks[where] = bytes_of(torch.empty(0, dtype=torch.uint8).set_(storage))
        begin = tensor.storage_offset() * tensor.element_size()
        yield blocks[where][begin : begin + tensor.nbytes]


def check_read_back(path: Path, meant: Mapping[str, Meant]) -> None:
    """Compare names, types, shapes and every byte of a file with what was meant.

    Raises:
        StageError: they differ.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (names := set(file.keys())) != set(meant):
                raise _mismatch(path, f"it holds {len(names)} tensors instead of {len(meant)}")
            for name, wanted in meant.items():
                found = file.get_slice(name)
                is_type = TensorType(found.get_dtype(), tuple(found.get_shape()))
                if is_type != wanted.type:
                    raise _mismatch(path, f"'{name}' is {is_type.dtype} {list(is_type.shape)}")
    except SafetensorError as error:
        raise _mismatch(path, str(error)) from error
    for name, sha256 in _hashes(path):
        if sha256 != meant[name].sha256:
            raise _mismatch(path, f"the bytes of '{name}' differ")


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file; hashlib.file_digest reads pieces thirty times smaller."""
    found, piece = hashlib.sha256(), memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(piece):
            found.update(piece[:count])
    return found.hexdigest()


def _hashes(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the sha256 of each tensor of a file that the safetensors package has opened.

    Of what is left of one, where the file has become shorter since.
    """
    piece = memoryview(bytearray(_PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        places = sorted((*entry["data_offsets"], name) for name, entry in header.items())
        unread = piece[:0]
        for begin, end, name in places:  # which follow each other without a gap
            found, num_bytes = hashlib.sha256(), end - begin
            while num_bytes and (unread or (unread := piece[: file.readinto(piece)])):
                found.update(unread[:num_bytes])
                num_bytes, unread = num_bytes - len(unread[:num_bytes]), unread[num_bytes:]
            yield name, found.digest()


def _mismatch(path: Path, what: str) -> StageError:
    message = f"'{path}' reads back differently from what was written: {what}. Check the disk."
    return StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
