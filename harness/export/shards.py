"""Write tensors to safetensors files, a shard at a time, and read each shard back.

The tensors of one shard are all that is held in memory. The file is written from their own
memory, without a copy, while its sha256 is computed. It is read back by the safetensors package,
after the pages that the system still held were dropped, and compared byte by byte with what was
meant: a file that was written and a file that can be read are two different claims.

Source: https://github.com/huggingface/safetensors, README, section "Format".
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.errors import ReasonCode, StageError

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
}


class Shard(NamedTuple):
    """A file that was written and read back."""

    path: Path
    sha256: str
    names: tuple[str, ...]
    data_bytes: int
    """Of its tensors, without the header."""


def write_shards(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, *, max_bytes: int
) -> Iterator[Shard]:
    """Write `tensors` to `shard-00001.safetensors` and so on, and yield each shard when it is safe.

    A shard holds at most `max_bytes`, or one tensor that alone is bigger.

    Raises:
        StageError: a name comes twice, or what is read back differs from what was written.
        OSError: the disk refuses.
    """
    held: dict[str, Tensor] = {}
    held_bytes, number, seen = 0, 1, set[str]()
    for name, tensor in tensors:
        if name in seen:
            message = f"the tensor '{name}' comes twice. The source's names are ambiguous."
            raise StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
        seen.add(name)
        if held and held_bytes + tensor.nbytes > max_bytes:
            yield _write_and_check(held, folder / f"shard-{number:05d}.safetensors")
            held, held_bytes, number = {}, 0, number + 1
        held[name] = tensor
        held_bytes += tensor.nbytes
    yield _write_and_check(held, folder / f"shard-{number:05d}.safetensors")


def _write_and_check(tensors: Mapping[str, Tensor], path: Path) -> Shard:
    # Big elements first, so that every tensor begins at a multiple of its element's size.
    order = sorted(tensors, key=lambda name: -tensors[name].element_size())
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for part in _parts({name: tensors[name] for name in order}):
            sha256.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "linux":  # else the read-back may be answered from memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    check_read_back(path, tensors)
    data_bytes = sum(tensor.nbytes for tensor in tensors.values())
    return Shard(path, sha256.hexdigest(), tuple(order), data_bytes)


def _parts(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of a safetensors file: header length, header, then every tensor."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, tensor in tensors.items():
        end = position + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        yield _bytes_of(tensor).numpy().data


def check_read_back(path: Path, meant: Mapping[str, Tensor]) -> None:
    """Compare names, types, shapes and every byte of a file with what was meant.

    Raises:
        StageError: they differ.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(meant):
                num_read = len(file.keys())
                raise _mismatch(path, f"it holds {num_read} tensors instead of {len(meant)}")
            for name, tensor in meant.items():
                _check_tensor(path, name, file.get_tensor(name), tensor)
    except SafetensorError as error:
        raise _mismatch(path, str(error)) from error


def _check_tensor(path: Path, name: str, read: Tensor, meant: Tensor) -> None:
    if (read.dtype, read.shape) != (meant.dtype, meant.shape):
        raise _mismatch(path, f"'{name}' is {read.dtype} {tuple(read.shape)}")
    if not torch.equal(_bytes_of(read), _bytes_of(meant)):
        raise _mismatch(path, f"the bytes of '{name}' differ")


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _mismatch(path: Path, what: str) -> StageError:
    message = f"'{path}' reads back differently from what was written: {what}. Check the disk."
    return StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
