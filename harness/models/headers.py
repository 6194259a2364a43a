"""Read what a safetensors file says it holds, and check that it can be true.

A file is 8 bytes (length of the header, little-endian), a JSON header, then the tensors' bytes.
The header is read here and not by the safetensors package, because a file that was cut short by
an interrupted download must be told apart from one that never was a safetensors file, and both
must be found before anything else runs. No tensor is read.

Source: https://github.com/huggingface/safetensors, README, section "Format".
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.errors import ModelError, ReasonCode
from harness.reading import DTYPE_BITS

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package
_LFS_POINTER = b"version "


class _Entry(NamedTuple):
    """One tensor of a header, after its types were checked."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """Return every tensor of the checkpoint in `folder`, in the order of its files.

    Raises:
        ModelError: there are no safetensors weights, a file is missing or cut short, or the index
            and the files contradict each other.
    """
    index = _read_index(folder)
    if index is None:
        return read_file_header(folder / _single_file(folder))
    headers: dict[str, TensorHeader] = {}
    for shard in sorted(set(index.values())):
        if not (folder / shard).is_file():
            message = f"'{folder / INDEX}' names '{shard}', which is missing. Download it again."
            raise ModelError(message)
        headers |= read_file_header(folder / shard)
    _check_index(folder, index, headers)
    return headers


def read_file_header(path: Path) -> dict[str, TensorHeader]:
    """Return every tensor of one safetensors file, in the order of its bytes.

    Raises:
        ModelError: the file is cut short, is no safetensors file, or its header lies.
    """
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        header_bytes = int.from_bytes(prefix, "little")
        if prefix == _LFS_POINTER:
            message = f"'{path}' is a Git LFS pointer, not weights. Run `git lfs pull` there."
            raise ModelError(message)
        if len(prefix) == len(_LFS_POINTER) and header_bytes > _MAX_HEADER_BYTES:
            raise _no_safetensors(path, "its header's length makes no sense")
        if 8 + header_bytes > file_bytes or len(prefix) < len(_LFS_POINTER):
            raise _truncated(path, file_bytes, 8 + header_bytes)
        entries = _parse(path, file.read(header_bytes))
    data_bytes = _check_layout(path, entries)
    expected_bytes = 8 + header_bytes + data_bytes
    if file_bytes < expected_bytes:
        raise _truncated(path, file_bytes, expected_bytes)
    if file_bytes > expected_bytes:
        raise _no_safetensors(path, f"{file_bytes - expected_bytes} bytes follow its last tensor")
    return {
        name: TensorHeader(
            shard=path.name,
            dtype=entry.dtype,
            shape=entry.shape,
            num_bytes=entry.end - entry.begin,
            offset=8 + header_bytes + entry.begin,
        )
        for name, entry in entries.items()
    }


def _single_file(folder: Path) -> str:
    """Return the name of the one weight file, or say what the folder has instead."""
    if (folder / SINGLE).is_file():
        return SINGLE
    if shards := sorted(folder.glob("*.safetensors")):
        message = (
            f"'{folder}' has {len(shards)} safetensors file(s), such as '{shards[0].name}', but "
            f"neither '{SINGLE}' nor '{INDEX}'. Download the model again."
        )
        raise ModelError(message)
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        message = (
            f"'{folder}' has only pickled weights, which can run code and are not read. "
            "Convert them to safetensors with transformers' save_pretrained."
        )
        raise ModelError(message)
    message = f"'{folder}' has no weights. It must hold '{SINGLE}', or shards and '{INDEX}'."
    raise ModelError(message)


def _read_index(folder: Path) -> Mapping[str, str] | None:
    """Return tensor names to shards, or None where there is no index."""
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        index = json.loads(path.read_bytes())
    except ValueError as error:
        message = f"'{path}' is not JSON ({error}). Download it again."
        raise ModelError(message) from error
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        message = f"'{path}' has no 'weight_map'. Download it again."
        raise ModelError(message)
    if strange := [s for s in weight_map.values() if not isinstance(s, str) or Path(s).name != s]:
        message = f"'{path}' names {strange[0]!r}, which is no file beside it. Download it again."
        raise ModelError(message)
    return weight_map


def _check_index(
    folder: Path, index: Mapping[str, str], headers: Mapping[str, TensorHeader]
) -> None:
    for name, shard in index.items():
        if name not in headers or headers[name].shard != shard:
            message = f"'{folder / INDEX}' says that '{shard}' holds '{name}'; it does not."
            raise ModelError(message + " Download both again.")
    if left_out := [name for name in headers if name not in index]:
        message = (
            f"'{folder / INDEX}' leaves out {len(left_out)} tensor(s) of its shards, such as "
            f"'{left_out[0]}'. Download it again."
        )
        raise ModelError(message)


def _parse(path: Path, header: bytes) -> dict[str, _Entry]:
    """Return the header's tensors, sorted by where they lie."""
    try:
        parsed = json.loads(header)
        parsed.pop("__metadata__", None)
        entries = {name: _entry(value) for name, value in parsed.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_safetensors(path, "its header cannot be read") from error
    return dict(sorted(entries.items(), key=lambda item: item[1].begin))


def _entry(value: Mapping[str, object]) -> _Entry:
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(shape, list) or not isinstance(offsets, list) or not isinstance(dtype, str):
        raise TypeError
    begin, end = (int(o) for o in offsets)
    return _Entry(dtype=dtype, shape=tuple(int(s) for s in shape), begin=begin, end=end)


def _check_layout(path: Path, entries: Mapping[str, _Entry]) -> int:
    """Return the bytes of all tensors, which must follow each other without a gap."""
    position = 0
    for name, entry in entries.items():
        if entry.dtype not in DTYPE_BITS:
            raise _no_safetensors(path, f"'{name}' has the unknown dtype '{entry.dtype}'")
        num_bits = DTYPE_BITS[entry.dtype] * math.prod(entry.shape)
        if entry.begin != position or (entry.end - entry.begin) * 8 != num_bits:
            raise _no_safetensors(
                path, f"the bytes of '{name}' do not fit its shape {list(entry.shape)}"
            )
        position = entry.end
    return position


def _truncated(path: Path, file_bytes: int, expected_bytes: int) -> ModelError:
    message = (
        f"'{path}' ends early: {file_bytes} bytes of at least {expected_bytes}. Download it again."
    )
    return ModelError(message, reason=ReasonCode.TRUNCATED_FILE)


def _no_safetensors(path: Path, why: str) -> ModelError:
    return ModelError(f"'{path}' is no valid safetensors file: {why}. Download it again.")
