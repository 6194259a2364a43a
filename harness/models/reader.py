"""Read tensors of a source, one at a time and only the part that is needed.

The files are mapped into memory, so reading one expert of a 3-D tensor touches that expert's
pages and no others.
"""

from typing import Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from harness.artifacts import Slice, TensorHeader
from harness.errors import ModelError
from harness.models.dtypes import TORCH_DTYPES
from harness.models.packed import Packed
from harness.models.slices import cut
from harness.models.source import Source
from harness.resources import ResourceOwner

_UNQUANTIZED = ("BF16", "F16", "F32", "F64")


class _LazyTensor(Protocol):
    """A tensor of an open file, of which nothing was read yet."""

    def __getitem__(self, part: int | slice | tuple[int, slice]) -> Tensor: ...


class _OpenFile(Protocol):
    """What safetensors' safe_open returns; it has no types of its own."""

    def get_tensor(self, name: str) -> Tensor: ...

    def get_slice(self, name: str) -> _LazyTensor: ...


class TensorReader(ResourceOwner):
    """Context manager over a source's weight files; each file is opened once, when needed."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._open_files: dict[str, _OpenFile] = {}

    def _open(self) -> None:
        self._exits.callback(self._open_files.clear)

    def tensor(self, name: str) -> Tensor:
        """Return the whole tensor `name` as it is stored, on the CPU; do not write to it.

        Raises:
            ModelError: there is no such tensor, or its file cannot be read any more.
        """
        packed = self._source.packed.get(name)
        if packed is not None and packed.num_experts is not None:
            return torch.stack([self._unpacked(packed, e) for e in range(packed.num_experts)])
        if packed is not None:
            return self._unpacked(packed, None)
        return self._file_of(name).get_tensor(name)

    def exponents(self, where: Slice) -> Tensor | None:
        """Return the stored exponents [O, B] of a weight's blocks; None where it has none.

        Raises:
            ModelError: as `tensor`.
        """
        packed = self._source.packed.get(where.tensor)
        if packed is None or packed.block is not None or where.expert is None:
            return None
        rows = slice(None) if where.rows is None else slice(*where.rows, where.step)
        return self._of_expert(packed.scales_name, packed.scales, where.expert)[rows]

    def matrix(self, where: Slice) -> Tensor:
        """Return the 2-D weight [out, in] at `where`, on the CPU; do not write to it.

        Raises:
            ModelError: as `tensor`, or the weight is stored quantized.
        """
        packed = self._source.packed.get(where.tensor)
        if packed is not None:
            return cut(self._unpacked(packed, where.expert), where.of_expert())
        lazy = self._file_of(where.tensor).get_slice(where.tensor)
        dtype = self._source.tensors[where.tensor].dtype
        if dtype not in _UNQUANTIZED:
            message = (
                f"'{where.tensor}' is stored as {dtype}: '{self._source.name}' is quantized "
                "already. Give the unquantized model."
            )
            raise ModelError(message)
        if where.is_transposed or where.step != 1:
            return cut(lazy[:] if where.expert is None else lazy[where.expert], where.of_expert())
        rows = slice(*where.rows) if where.rows is not None else slice(None)
        return lazy[rows] if where.expert is None else lazy[where.expert, rows]

    def _unpacked(self, packed: Packed, expert: int | None) -> Tensor:
        """Return a matrix that the files hold as codes and scales."""
        codes = self._of_expert(packed.codes_name, packed.codes, expert)
        return packed.unpack(codes, self._of_expert(packed.scales_name, packed.scales, expert))

    def _of_expert(self, name: str, header: TensorHeader, expert: int | None) -> Tensor:
        file = self._opened(header)
        return file.get_tensor(name) if expert is None else file.get_slice(name)[expert]

    def _file_of(self, name: str) -> _OpenFile:
        """Return the open file that holds `name`."""
        header = self._source.tensors.get(name)
        if header is None:
            message = f"'{self._source.name}' has no tensor '{name}'. Download the model again."
            raise ModelError(message)
        return self._opened(header)

    def _opened(self, header: TensorHeader) -> _OpenFile:
        if header.shard not in self._open_files:
            path = self._source.path / header.shard
            try:
                file = self._exits.enter_context(safe_open(path, framework="pt", device="cpu"))
            except (OSError, SafetensorError) as error:
                message = f"'{path}' cannot be read: {error}. Download the model again."
                raise ModelError(message) from error
            self._open_files[header.shard] = cast("_OpenFile", file)
        return self._open_files[header.shard]


def stored_dtype(source: Source) -> torch.dtype:
    """Return the type in which most bytes of an unquantized source are stored.

    config.json may lack it, or state one that the files do not have.
    """
    return TORCH_DTYPES[stored_dtype_name(source)]


def stored_dtype_name(source: Source) -> str:
    """Return the same as headers spell it."""
    bytes_by_dtype = dict.fromkeys(_UNQUANTIZED, 0)
    for header in source.tensors.values():
        if header.dtype in bytes_by_dtype:
            bytes_by_dtype[header.dtype] += header.num_bytes
    return max(bytes_by_dtype, key=lambda dtype: bytes_by_dtype[dtype])
