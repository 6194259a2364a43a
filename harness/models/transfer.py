"""Bring bytes of files into memory of the host or of a GPU, with several threads.

The files are read with preadv, which copies from the system's cache at several times the speed of a
mapped file's page faults, and lets other threads run. For a GPU each piece goes through a buffer of
pinned memory, from which it is copied while others are read; no layer is held by the host.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from queue import SimpleQueue

import torch
from torch import Tensor

from harness.cores import num_cores
from harness.errors import ModelError
from harness.models.pieces import Span
from harness.resources import ResourceOwner

_PIECE_BYTES = 16 << 20
_MAX_THREADS = 8
"""Each needs a pinned buffer of this size, and asks for the interpreter between two pieces."""


class Transfer(ResourceOwner):
    """Context manager over the files of a folder and the threads that read them."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Open nothing yet."""
        super().__init__()
        self._folder, self._device = folder, device
        self._files: dict[str, int] = {}
        self._num_threads = min(_MAX_THREADS, num_cores())

    def _open(self) -> None:
        self._threads = threads_for(self._device, self._num_threads, "read")
        self._exits.callback(self._threads.shutdown, cancel_futures=True)
        if self._device.type == "cuda":
            self.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch
            self._buffers: SimpleQueue[_Pinned] = SimpleQueue()
            for _ in range(self._num_threads):
                self._buffers.put(_Pinned())

    def read(self, spans: Sequence[Span], block: Tensor) -> None:
        """Fill a uint8 block; on a GPU the copies are queued on `stream` when this returns.

        Raises:
            ModelError: a file cannot be read, or has become shorter.
        """
        for span in spans:
            self._open_file(span.shard)
        if self._device.type == "cpu":
            done = self._threads.map(self._read_into, _pieces(spans), repeat(block.numpy().data))
        else:
            done = self._threads.map(self._to_gpu, _pieces(spans), repeat(block))
        for _ in done:  # raises what went wrong
            pass

    def _open_file(self, shard: str) -> None:
        if shard not in self._files:
            path = self._folder / shard
            try:
                file = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise _unreadable(path, str(error)) from error
            self._exits.callback(os.close, file)
            self._files[shard] = file

    def _to_gpu(self, piece: Span, block: Tensor) -> None:
        buffer = self._buffers.get()
        try:
            buffer.copied.synchronize()  # what it held before has left it
            self._read_into(piece._replace(into=0), buffer.bytes)
            with torch.cuda.stream(self.stream):
                target = block[piece.into : piece.into + piece.num_bytes]
                target.copy_(buffer.memory[: piece.num_bytes], non_blocking=True)
                buffer.copied.record(self.stream)
        finally:
            self._buffers.put(buffer)

    def _read_into(self, piece: Span, memory: memoryview) -> None:
        view, offset = memory[piece.into : piece.into + piece.num_bytes], piece.offset
        while view:
            try:
                count = os.preadv(self._files[piece.shard], [view], offset)
            except OSError as error:
                raise _unreadable(self._folder / piece.shard, str(error)) from error
            if not count:
                raise _unreadable(self._folder / piece.shard, f"it ends at byte {offset}")
            view, offset = view[count:], offset + count


def threads_for(device: torch.device, number: int, name: str) -> ThreadPoolExecutor:
    """Return threads whose current GPU is `device`; a new thread's is the first one."""
    if device.type != "cuda":
        return ThreadPoolExecutor(number, name)
    return ThreadPoolExecutor(number, name, torch.cuda.set_device, (gpu_index(device),))


def gpu_index(device: torch.device) -> int:
    """Return the number of a GPU, which is the current one where its name has none."""
    return torch.cuda.current_device() if device.index is None else device.index


class _Pinned:
    """A buffer from which a GPU copies by itself."""

    def __init__(self) -> None:
        self.memory = torch.empty(_PIECE_BYTES, dtype=torch.uint8, pin_memory=True)
        self.bytes: memoryview = self.memory.numpy().data
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch


def _pieces(spans: Sequence[Span]) -> Iterator[Span]:
    for span in spans:
        for done in range(0, span.num_bytes, _PIECE_BYTES):
            size = min(_PIECE_BYTES, span.num_bytes - done)
            yield Span(span.shard, span.offset + done, size, span.into + done)


def _unreadable(path: Path, why: str) -> ModelError:
    return ModelError(f"'{path}' cannot be read: {why}. Download the model again.")
