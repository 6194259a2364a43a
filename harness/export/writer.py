"""Write the checkpoint: tensors come in any order, and the folder gets its name when all is there.

Each tensor goes to the place that the plan gives it. Threads write: while one tensor is hashed and
written, the next ones are made. What waits for them is bounded, whatever the size of the model. As
soon as a file is full it is forced to the disk, the pages that the system still holds are dropped,
and it is read back: a file that was written and a file that can be read are two different claims.

A checkpoint of experts has ten thousands of tensors, and what Python does for each of them keeps
the thread waiting that runs the model. So neighbours are written with one call of the system.
"""

import errno
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import torch
import xxhash
from torch import Tensor

from harness.artifacts import Checkpoint, QuantizedTensor, QuantPlan
from harness.cores import num_cores
from harness.errors import DiskFullError, ReasonCode, StageError
from harness.export import read_back
from harness.export.config import config_with_quantization, hf_quant_config
from harness.export.folder import check_target, flush, partial_folder, partial_of, replace
from harness.export.following import Follower
from harness.export.layout import CheckpointLayout, Place, lay_out
from harness.export.manifest import WrittenFile, describe, write_index, write_json
from harness.export.sidecars import copy_sidecars
from harness.export.size import early_tensors, late_tensors, required_bytes, shard_bytes
from harness.models import Source, header_dtype, remember_written
from harness.resources import ResourceOwner

_log = logging.getLogger("harness.export")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MAX_THREADS = 8
"""Enough to hash what a GPU makes; more only keep the model waiting for the interpreter."""
_MAX_WAITING_BYTES = 256 << 20
"""Of tensors that were put and are not yet written."""
_MAX_AT_ONCE = 512
"""Tensors of one write; systems allow 1,024."""


class CheckpointWriter(ResourceOwner):
    """Context manager over a checkpoint in the making.

    Nothing is written before the first tensor comes or `begin`, and nothing is left unless the
    checkpoint was completed.
    """

    def __init__(
        self,
        source: Source,
        plan: QuantPlan,
        *,
        into: Path,
        max_shard_bytes: int | None = None,
        joins: bool = False,
    ) -> None:
        """Take what is to be written, and where; one that `joins` was begun by another process.

        Raises:
            RunDirectoryError: `into` holds something that is no checkpoint of harness.
        """
        super().__init__()
        check_target(source, into)
        self._source, self._plan, self.into = source, plan, into
        self._max_shard_bytes, self._joins = max_shard_bytes, joins
        self._follower: Follower | None = None
        self._begun, self._layout = False, CheckpointLayout(shards=(), places={})
        self._lock = threading.Lock()
        self._waiting = _Allowance(_MAX_WAITING_BYTES)
        self._came: set[str] = set()
        self._hashes: list[dict[str, bytes]] = []
        """XXH3 of what is written, by file and name."""
        self._files: list[int] = []
        self._work: deque[Future[None]] = deque()
        self._done: dict[int, WrittenFile] = {}

    def show(self, follower: Follower) -> None:
        """Let files be looked at as soon as they are full; to be said before anything is put."""
        self._follower = follower

    def begin(self) -> None:
        """Create the files, so that several threads may write, and other processes join.

        Raises:
            DiskFullError: no space is left.
        """
        if self._begun:
            return
        with self._disk_full():
            if not self._joins:
                self._exits.enter_context(partial_folder(self.into))
            tensors = list(early_tensors(self._source, self._plan))
            late = list(late_tensors(self._source, self._plan))
            num_bytes = sum(tensor.num_bytes for _, tensor in chain(tensors, late))
            most = self._max_shard_bytes or shard_bytes(num_bytes)
            self._layout = lay_out(tensors, max_bytes=most, late=late)
            self._create_files(self._layout)
            if self._follower is not None:
                self._declare()
                self._follower.begin((partial_of(self.into), self.into), num_bytes)
        self._threads = ThreadPoolExecutor(min(_MAX_THREADS, num_cores()), "export")
        self._exits.callback(self._threads.shutdown, cancel_futures=True)
        self._begun = True

    def put(self, tensors: Iterable[QuantizedTensor], *, here: bool = False) -> None:
        """Write tensors of the CPU; they must not be changed, for they are written later.

        Args:
            tensors: some of the checkpoint's.
            here: write them in this thread and before this returns, so that big ones do not hold up
                what another thread puts.

        Raises:
            DiskFullError: no space is left.
            StageError: one is not as the plan has it, or comes twice.
        """
        self.begin()
        with self._disk_full():
            for one in tensors:
                places = [
                    self._expect(name, header_dtype(tensor.dtype), tensor.shape)
                    for name, tensor in one.tensors.items()
                ]
                if here:
                    self._write(one.tensors)
                    continue
                num_bytes = sum(place.end - place.offset for place in places)
                self._waiting.take(num_bytes)
                future = self._threads.submit(self._write, one.tensors)
                future.add_done_callback(partial(self._waiting.give, num_bytes))
                self._work.append(future)
                while self._work and self._work[0].done():
                    self._work.popleft().result()

    def written(self) -> Mapping[str, str]:
        """Wait until all that was put is written; return the XXH3 of each tensor, for `adopt`.

        Raises:
            DiskFullError: no space is left.
        """
        with self._disk_full():
            self._finish_work()
            for file in self._files:  # for the one who reads it back, maybe on another machine
                os.fsync(file)
        return {name: xxh3.hex() for hashes in self._hashes for name, xxh3 in hashes.items()}

    def adopt(self, written: Mapping[str, str]) -> None:
        """Take for written what the writer of another process has `written`.

        Raises:
            StageError: a tensor has no place, or comes twice.
        """
        self.begin()
        for name in written:
            self._expect(name)
        hashes = {name: bytes.fromhex(xxh3) for name, xxh3 in written.items()}
        self._work.append(self._threads.submit(self._note, hashes))

    def has(self, name: str) -> bool:
        """Tell whether a tensor has come."""
        return name in self._came

    def complete(self, rest: Iterable[QuantizedTensor]) -> Checkpoint:
        """Write the tensors that are left and what belongs to them; give the folder its name.

        Raises:
            DiskFullError: no space is left; nothing of the new checkpoint stays.
            StageError: a tensor is missing, or a file reads back differently.
        """
        self.put(rest)
        partial = partial_of(self.into)
        with self._disk_full():
            files = self._finish()
            write_index(files, partial)
            self._declare()
            copy_sidecars(self._source.path, partial)
            checkpoint = describe(self._source, self._plan, files, partial, self.into)
            flush(partial)
            replace(self.into, partial)
            remember_written({self.into / name: h for name, h in checkpoint.sha256.items()})
        _log.info("export: %.2f GiB in %d file(s)", checkpoint.num_bytes / 2**30, len(files))
        return checkpoint

    def _declare(self) -> None:
        """Write what the checkpoint says of itself."""
        partial = partial_of(self.into)
        write_json(partial / "hf_quant_config.json", hf_quant_config(self._plan))
        config = config_with_quantization(self._source.config, self._plan)
        write_json(partial / "config.json", config)

    def _create_files(self, layout: CheckpointLayout) -> None:
        """Create every file with its header, or open those that another process has created."""
        for shard in layout.shards:
            flags = os.O_RDWR if self._joins else os.O_RDWR | os.O_CREAT | os.O_EXCL
            file = os.open(partial_of(self.into) / shard.name, flags, 0o666)
            self._exits.callback(os.close, file)
            self._files.append(file)
            self._hashes.append({})
            if not self._joins:
                os.truncate(file, len(shard.header) + shard.data_bytes)
                _write_at(file, [memoryview(shard.header)], 0)

    def _expect(self, name: str, dtype: str = "", shape: tuple[int, ...] = ()) -> Place:
        """Return where a tensor that comes will lie; each comes once, and as it is planned.

        Of one that another process has written, no type is known.
        """
        place = self._layout.places.get(name)
        if place is None or name in self._came:
            raise _not_as_planned([name], "not expected" if place is None else "there twice")
        wanted = place.type
        if dtype and (dtype != wanted.dtype or shape != wanted.shape):
            is_now = f"{dtype} {list(shape)}"
            what = f"{is_now} instead of {wanted.dtype} {list(wanted.shape)}"
            raise _not_as_planned([name], what)
        self._came.add(name)
        return place

    def _write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors to their places."""
        places = map(self._layout.places.__getitem__, tensors)
        pieces = sorted(zip(places, tensors, _bytes_of_each(tensors.values()), strict=True))
        for first, last in _neighbours([place for place, _, _ in pieces]):
            contents = [content for _, _, content in pieces[first:last]]
            place = pieces[first][0]
            _write_at(self._files[place.shard], contents, place.offset)
        self._note({name: xxhash.xxh3_128_digest(content) for _, name, content in pieces})

    def _note(self, hashes: Mapping[str, bytes]) -> None:
        """Remember the hashes of tensors that are written; close the files that are full."""
        shards = [self._layout.places[name].shard for name in hashes]
        with self._lock:
            for shard, (name, xxh3) in zip(shards, hashes.items(), strict=True):
                self._hashes[shard][name] = xxh3
            full = [shard for shard in sorted(set(shards)) if self._is_full(shard)]
        if not self._joins:
            for shard in full:
                self._close_file(shard)

    def _is_full(self, shard: int) -> bool:
        return len(self._hashes[shard]) == len(self._layout.shards[shard].tensors)

    def _close_file(self, index: int) -> None:
        """Force a full file to the disk, and have it read back."""
        file = self._files[index]
        os.fsync(file)
        if sys.platform == "linux":  # else the read-back may be answered from memory
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._work.append(self._threads.submit(self._read_back, index))

    def _read_back(self, index: int) -> None:
        shard, hashes = self._layout.shards[index], self._hashes[index]
        path = partial_of(self.into) / shard.name
        meant = [hashes[name] for name in shard.tensors]
        found = read_back.read_file(path)
        read_back.check_read_back(path, found, shard, meant)
        tensors_xxh3 = read_back.joined(found.header, meant)
        names = tuple(shard.tensors)
        done = WrittenFile(path, found.sha256, tensors_xxh3, names, shard.data_bytes)
        with self._lock:
            self._done[index] = done
        if self._follower is not None:
            self._follower.add([path.name])

    def _finish_work(self) -> None:
        while self._work:
            self._work.popleft().result()

    def _finish(self) -> Sequence[WrittenFile]:
        """Wait until every file was written and read back; return them in order."""
        if missing := sorted(self._layout.places.keys() - self._came):
            raise _not_as_planned(missing, "missing")
        for index, shard in enumerate(self._layout.shards):
            if not shard.tensors:
                self._close_file(index)
        self._finish_work()
        return [self._done[index] for index in sorted(self._done)]

    @contextmanager
    def _disk_full(self) -> Iterator[None]:
        """Turn the system's refusal to write into one line that says how much space is needed."""
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            message = (
                f"no space left while writing '{self.into}': the checkpoint needs "
                f"{required_bytes(self._source, self._plan)} bytes. Free some, or choose another "
                "disk."
            )
            raise DiskFullError(message) from error


def export(
    source: Source,
    plan: QuantPlan,
    tensors: Iterable[QuantizedTensor],
    *,
    into: Path,
    max_shard_bytes: int | None = None,
) -> Checkpoint:
    """Write `tensors` and all that belongs to them to the folder `into`.

    Raises:
        DiskFullError: no space is left; nothing of the new checkpoint stays.
        RunDirectoryError: `into` holds something that is no checkpoint of harness.
        StageError: a tensor is missing or comes twice, or a file reads back differently.
    """
    with CheckpointWriter(source, plan, into=into, max_shard_bytes=max_shard_bytes) as writer:
        return writer.complete(tensors)


class _Allowance:
    """Bytes that may be held at a time; one that is bigger than all of it waits for the rest."""

    def __init__(self, num_bytes: int) -> None:
        self._all = self._left = num_bytes
        self._changed = threading.Condition()

    def take(self, num_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._left >= min(num_bytes, self._all))
            self._left -= num_bytes

    def give(self, num_bytes: int, _: object = None) -> None:
        with self._changed:
            self._left += num_bytes
            self._changed.notify_all()


def _bytes_of_each(tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    """Yield the bytes of many tensors, which may lie in one block of memory, as all experts' do.

    Each of torch's functions gives the interpreter away and asks for it again, which keeps the
    thread waiting that runs the model; what is called here for each tensor does not.
    """
    blocks: dict[tuple[int, int], memoryview] = {}
    for tensor in tensors:
        whole = tensor if tensor.is_contiguous() else tensor.contiguous()
        storage = whole.untyped_storage()
        if (where := (storage.data_ptr(), storage.nbytes())) not in blocks:
            blocks[where] = torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data
        begin = whole.storage_offset() * whole.element_size()
        yield blocks[where][begin : begin + whole.nbytes]


def _neighbours(places: Sequence[Place]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last, exclusive, of those that lie together, of places in order."""
    first = 0
    for number, place in enumerate(places[1:], start=1):
        before = places[number - 1]
        is_next = (place.shard, place.offset) == (before.shard, before.end)
        if not is_next or number - first == _MAX_AT_ONCE:
            yield first, number
            first = number
    if places:
        yield first, len(places)


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
