"""Write tensors to their places in safetensors files, and read each file back.

Threads write: while one tensor is hashed and written, the next ones are made. What waits for them
is bounded, whatever the size of the model. As soon as a file is full it is forced to the disk, the
pages that the system still holds are dropped, and it is read back: a file that was written and a
file that can be read are two different claims.

A checkpoint of experts has ten thousands of tensors, and what Python does for each of them keeps
the thread waiting that runs the model. So neighbours are written with one call of the system.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import xxhash
from torch import Tensor

from harness.artifacts import TensorType
from harness.errors import ReasonCode, StageError
from harness.export import read_back
from harness.export.layout import Layout, Place
from harness.export.read_back import Meant, bytes_of_each, type_of
from harness.holding import Holding

_MAX_THREADS = 8
"""Enough to hash what a GPU makes; more only keep the model waiting for the interpreter."""
_MAX_WAITING_BYTES = 256 << 20
"""Of tensors that are handed over and not yet written."""
_MAX_AT_ONCE = 512
"""Tensors of one write; systems allow 1,024."""


class Shard(NamedTuple):
    """A file that was written and read back."""

    path: Path
    sha256: str
    """Of the file, as it was read back."""
    tensors_xxh3: str
    """Of what was meant: XXH3 of the XXH3 of the header and of those of its tensors."""
    names: tuple[str, ...]
    data_bytes: int
    """Of its tensors, without the header."""


class ShardWriter(Holding):
    """Context manager over the files of a layout: takes tensors in any order.

    What it takes must not be changed afterwards, for it is written later.
    """

    def __init__(self, layout: Layout, folder: Path, *, joins: bool = False) -> None:
        """Take the place of every tensor; nothing is written yet.

        One that `joins` writes into the files that another process has created.
        """
        super().__init__()
        self._layout, self._folder, self._joins = layout, folder, joins
        self._lock = threading.Lock()
        self._waiting = _Allowance(_MAX_WAITING_BYTES)
        self._put: set[str] = set()
        self._meant: list[dict[str, Meant]] = [{} for _ in layout.shards]
        self._files: list[int] = []
        self._work: deque[Future[None]] = deque()
        self._done: dict[int, Shard] = {}

    def _take_hold(self) -> None:
        """Create every file with its header.

        Raises:
            OSError: the disk refuses.
        """
        for shard in self._layout.shards:
            flags = os.O_RDWR if self._joins else os.O_RDWR | os.O_CREAT | os.O_EXCL
            file = os.open(self._folder / shard.name, flags, 0o666)
            self._exits.callback(os.close, file)
            self._files.append(file)
            if not self._joins:
                os.truncate(file, len(shard.header) + shard.data_bytes)
                _write_at(file, [memoryview(shard.header)], 0)
        self._threads = ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), "export")
        self._exits.callback(self._threads.shutdown, cancel_futures=True)

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Write CPU tensors to their places; returns before they are written.

        Raises:
            StageError: a tensor has no place, comes twice or is of another type or shape.
            OSError: the disk refused what was put before.
        """
        for name, tensor in tensors.items():
            self._check(name, tensor)
            self._put.add(name)
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        self._waiting.take(num_bytes)
        self._submit(tensors, num_bytes)
        self._raise_failed()

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write CPU tensors to their places, in this thread: big ones do not hold up what is put.

        Raises:
            StageError: a tensor has no place, comes twice or is of another type or shape.
            OSError: the disk refused.
        """
        for name, tensor in tensors.items():
            self._check(name, tensor)
            self._put.add(name)
        self._write(tensors)

    def hand_over(self) -> Mapping[str, str]:
        """Wait until all that was put is written; return the XXH3 of each tensor.

        Raises:
            OSError: the disk refused.
        """
        while self._work:
            self._work.popleft().result()
        return {name: meant.xxh3.hex() for one in self._meant for name, meant in one.items()}

    def adopt(self, written: Mapping[str, str]) -> None:
        """Take for written what another process has written, by the XXH3 of each tensor.

        Raises:
            StageError: a tensor has no place, or comes twice.
        """
        meant = {}
        for name, xxh3 in written.items():
            place = self._layout.places.get(name)
            if place is None or name in self._put:
                raise _not_as_planned([name], "not expected" if place is None else "there twice")
            self._put.add(name)
            meant[name] = Meant(place.type, bytes.fromhex(xxh3))
        self._work.append(self._threads.submit(self._take, meant))

    def has(self, name: str) -> bool:
        """Tell whether a tensor was put or adopted."""
        return name in self._put

    def finish(self) -> list[Shard]:
        """Wait until every file was written and read back; return them in order.

        Raises:
            StageError: a tensor is missing, or a file reads back differently.
            OSError: the disk refuses.
        """
        if missing := sorted(self._layout.places.keys() - self._put):
            raise _not_as_planned(missing, "missing")
        for index, shard in enumerate(self._layout.shards):
            if not shard.tensors:
                self._begin_to_close(index)
        while self._work:
            self._work.popleft().result()
        return [self._done[index] for index in sorted(self._done)]

    def _check(self, name: str, tensor: Tensor) -> None:
        place = self._layout.places.get(name)
        if place is None or name in self._put:
            raise _not_as_planned([name], "not expected" if place is None else "there twice")
        if place.type != type_of(tensor):
            what = f"{tensor.dtype} {list(tensor.shape)} instead of {place.type.dtype} "
            raise _not_as_planned([name], what + f"{list(place.type.shape)}")

    def _submit(self, tensors: Mapping[str, Tensor], num_bytes: int) -> None:
        future = self._threads.submit(self._write, tensors)
        future.add_done_callback(lambda _: self._waiting.give(num_bytes))
        self._work.append(future)

    def _raise_failed(self) -> None:
        while self._work and self._work[0].done():
            self._work.popleft().result()

    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors to their places."""
        places = self._layout.places
        contents = dict(zip(tensors, bytes_of_each(tensors.values()), strict=True))
        for first, run in _runs((places[name], content) for name, content in contents.items()):
            _write_at(self._files[first.shard], run, first.offset)
        self._take(
            {
                name: Meant(places[name].type, xxhash.xxh3_128_digest(content))
                for name, content in contents.items()
            }
        )

    def _take(self, meant: Mapping[str, Meant]) -> None:
        """Remember what was meant of tensors that are written; close the files that are full."""
        full = set()
        with self._lock:
            for name, one in meant.items():
                shard = self._layout.places[name].shard
                self._meant[shard][name] = one
                if len(self._meant[shard]) == len(self._layout.shards[shard].tensors):
                    full.add(shard)
        if not self._joins:
            for index in sorted(full):
                self._begin_to_close(index)

    def _begin_to_close(self, index: int) -> None:
        """Force a full file to the disk, and have it read back."""
        file = self._files[index]
        path = self._folder / self._layout.shards[index].name
        os.fsync(file)
        if sys.platform == "linux":  # else the read-back may be answered from memory
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._work.append(self._threads.submit(self._read_back, index, path))

    def _read_back(self, index: int, path: Path) -> None:
        shard, meant = self._layout.shards[index], self._meant[index]
        found = read_back.read_file(path)
        read_back.check_read_back(path, found, meant)
        tensors_xxh3 = read_back.joined(shard.header, (meant[name].xxh3 for name in shard.tensors))
        done = Shard(path, found.sha256, tensors_xxh3, tuple(shard.tensors), shard.data_bytes)
        with self._lock:
            self._done[index] = done


class _Allowance:
    """Bytes that may be held at a time; one that is bigger than all of it waits for the rest."""

    def __init__(self, num_bytes: int) -> None:
        self._all = self._left = num_bytes
        self._changed = threading.Condition()

    def take(self, num_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= min(num_bytes, self._all))
            self._left -= num_bytes

    def give(self, num_bytes: int) -> None:
        with self._changed:
            self._left += num_bytes
            self._changed.notify_all()


def _runs(
    contents: Iterable[tuple[Place, memoryview]],
) -> Iterator[tuple[Place, Sequence[memoryview]]]:
    """Yield what lies together in one file, and the place of the first of it."""
    first, end, run = Place(-1, 0, TensorType("U8", ())), 0, list[memoryview]()
    for place, content in sorted(contents, key=lambda one: one[0][:2]):
        if (place.shard, place.offset) != (first.shard, end) or len(run) == _MAX_AT_ONCE:
            if run:
                yield first, run
            first, end, run = place, place.offset, []
        run.append(content)
        end += len(content)
    if run:
        yield first, run


def _write_at(file: int, contents: Sequence[memoryview], offset: int) -> None:
    """Write one after the other; the system may take a part of it at a time."""
    waiting = [content for content in contents if content]
    while waiting:
        written = os.pwritev(file, waiting, offset)
        offset += written
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.pop(0))
        if written:
            waiting[0] = waiting[0][written:]


def _not_as_planned(names: list[str], which: str) -> StageError:
    message = (
        f"the checkpoint would not be what the plan says: {len(names)} tensor(s) differ, such "
        f"as '{names[0]}', which is {which}. Nothing was kept; report this as a bug."
    )
    return StageError(message, reason=ReasonCode.READ_BACK_MISMATCH)
