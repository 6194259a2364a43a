"""The one pass over the data: numbers about each tensor, its source beside it, the hash of files.

Every byte is read once, in pieces that fit a core's cache. Files are cut between tensors into
stretches, which threads take as they become free, so that neither a large file nor a large tensor
keeps all others waiting; a file that is hashed as a whole is one stretch. Threads wait for each
other's Python, so the stretches of a large checkpoint are shared among processes with a few threads
each. What was found is put together in the order of the files.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, islice, zip_longest
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from harness.cores import num_cores
from harness.verify.compare import Outcome, TensorComparison
from harness.verify.hashing import Hashed, Hasher, join_digests
from harness.verify.scan import Facts, facts_of, is_settled, marked
from harness.verify.shards import Entry, Shard
from harness.verify.stored import Buffers, Bytes, StoredTensors

_MAX_WORKERS = 8
"""Each calls numpy thousands of times a second; more of them mostly wait for the interpreter."""
_PIECE_BYTES = 1 << 18
_STRETCH_BYTES = 1 << 23
"""Of a checkpoint's tensors; with a source, a thread takes some ten milliseconds for it."""
_CORES_EACH = 2
"""Of a process, and"""
_BYTES_EACH = 4 << 30
"""it is begun for no less: it reads all headers once more."""
_FAR = 1 << 62
_LARGE = 4
"""Stretches this many times longer, which are one tensor or one file, are begun first."""

Compare = Callable[[str, Entry], TensorComparison | None]
"""Returns the comparison of a tensor, if there is one to make."""


class Task(NamedTuple):
    """What the pass is to do with one file."""

    shard: Shard
    hashed: Hashed


class ShardScan(NamedTuple):
    """What the pass found in a file."""

    facts: dict[str, Facts]
    outcomes: tuple[Outcome, ...]
    hash: str | None
    """None where no manifest asked for it."""


class _Stretch(NamedTuple):
    """A part of a file that one thread reads."""

    shard: Shard
    tensors: Sequence[tuple[str, Entry]]
    begin: int
    """First byte in the file; what lies before the first tensor is only hashed."""
    end: int | None
    """None for the last, which reads on to the end of the file."""
    hashed: Hashed


class Found(NamedTuple):
    """What was found in one stretch."""

    facts: dict[str, Facts]
    outcomes: list[Outcome]
    digests: bytes


class DataPass:
    """The pass over some files, of which others may do a part."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Take what is to be done with each file."""
        self._tasks = tasks
        self._cut = [list(_stretches(task)) for task in tasks]

    def shards(
        self, stored: StoredTensors, compare: Compare, *, num_threads: int | None = None
    ) -> Iterator[ShardScan]:
        """Yield what is found in each file, in the order of the tasks.

        Args:
            stored: the files, held open.
            compare: called in the threads.
            num_threads: how many; by default as many as pay.
        """
        number = num_threads or min(_MAX_WORKERS, num_cores())
        return self._joined(_read_all(list(chain(*self._cut)), stored, compare, num_threads=number))

    def share(
        self, stored: StoredTensors, compare: Compare, *, number: int, count: int
    ) -> Sequence[Found]:
        """Return what process `number` of `count` finds in its stretches."""
        mine = list(chain(*self._cut))[number::count]
        num_threads = max(1, num_cores() // count)
        return list(_read_all(mine, stored, compare, num_threads=num_threads))

    def shards_of(self, shares: Sequence[Sequence[Found]]) -> Iterator[ShardScan]:
        """Yield what is found in each file, from the shares of all processes in their order."""
        by_turns = chain(*zip_longest(*shares))
        return self._joined(found for found in by_turns if found is not None)

    def _joined(self, found: Iterator[Found]) -> Iterator[ShardScan]:
        for task, stretches in zip(self._tasks, self._cut, strict=True):
            yield _joined(task, list(islice(found, len(stretches))))


def num_processes(num_bytes: int) -> int:
    """Return how many processes should share a pass over so many bytes."""
    return max(1, min(num_cores() // _CORES_EACH, num_bytes // _BYTES_EACH))


def _read_all(
    stretches: Sequence[_Stretch], stored: StoredTensors, compare: Compare, *, num_threads: int
) -> Iterator[Found]:
    """Yield what is found in each stretch, in their order."""
    memory: SimpleQueue[Buffers] = SimpleQueue()
    for _ in range(num_threads):
        memory.put(Buffers())

    def read(stretch: _Stretch) -> Found:
        buffers = memory.get()
        try:
            with np.errstate(all="ignore"):  # faulty scales are other checks' business
                return _read_stretch(_Window(stored, stretch, buffers), compare)
        finally:
            memory.put(buffers)

    with ExitStack() as exits:
        pool = ThreadPoolExecutor(num_threads, "verify")
        exits.callback(pool.shutdown, cancel_futures=True)
        found = {id(s): pool.submit(read, s) for s in sorted(stretches, key=_is_small)}
        for stretch in stretches:
            yield found.pop(id(stretch)).result()


def _stretches(task: Task) -> Iterator[_Stretch]:
    shard, hashed = task
    in_order = sorted(shard.entries.items(), key=lambda item: item[1].start)
    tensors: list[tuple[str, Entry]] = []
    begin = position = 0
    for name, entry in in_order:
        size = max(position, shard.data_start + entry.end) - begin
        if tensors and size > _STRETCH_BYTES and hashed is not Hashed.FILE:
            yield _Stretch(shard, tensors, begin, position, hashed)
            tensors, begin = [], position
        tensors.append((name, entry))
        position = max(position, shard.data_start + entry.end)
    yield _Stretch(shard, tensors, begin, None, hashed)


def _is_small(stretch: _Stretch) -> bool:
    num_bytes = sum(entry.end - entry.start for _, entry in stretch.tensors)
    return num_bytes < _LARGE * _STRETCH_BYTES


def _joined(task: Task, found: Sequence[Found]) -> ShardScan:
    facts = {name: seen for part in found for name, seen in part.facts.items()}
    outcomes = tuple(outcome for part in found for outcome in part.outcomes)
    joined = join_digests(task.hashed, (part.digests for part in found))
    return ShardScan(facts, outcomes, joined)


class _Window:
    """A stretch of a file, of which a little is in memory."""

    def __init__(self, stored: StoredTensors, stretch: _Stretch, buffers: Buffers) -> None:
        self.stretch, self.buffers, self._stored = stretch, buffers, stored
        self._begin = self._end = stretch.begin

    def pieces(self, begin: int, end: int, piece_bytes: int = _PIECE_BYTES) -> Iterator[Bytes]:
        """Yield the bytes of a part of the file, which are gone with the next piece."""
        while begin < end:
            piece = self._take(begin, min(piece_bytes, end - begin))
            if piece.size == 0:
                return
            yield piece
            begin += piece.size

    def _take(self, begin: int, num_bytes: int) -> Bytes:
        """Return bytes, fewer where the file ends; they are read with those that follow."""
        if not self._begin <= begin <= begin + num_bytes <= self._end:
            self._read(begin, max(num_bytes, _PIECE_BYTES))
        room = self.buffers.room("window", self._end - self._begin)
        return room[begin - self._begin :][:num_bytes]

    def _read(self, begin: int, num_bytes: int) -> None:
        last = self.stretch.end
        if last is not None:
            num_bytes = min(num_bytes, last - begin)
        kept = max(self._end - begin, 0) if begin >= self._begin else 0
        tail = self.buffers.room("window", self._end - self._begin)[-kept:].copy() if kept else None
        room = self.buffers.room("window", num_bytes)
        if tail is not None:
            room[:kept] = tail  # what was read with the piece before is not read again
        size = self._stored.fill_from(room[kept:], self.stretch.shard.name, begin + kept)
        self._begin, self._end = begin, begin + kept + size


def _read_stretch(window: _Window, compare: Compare) -> Found:
    stretch = window.stretch
    hasher, data_start = Hasher(stretch.hashed), stretch.shard.data_start
    facts: dict[str, Facts] = {}
    outcomes: list[Outcome] = []
    position = stretch.begin
    if position == 0:
        position = _hash(window, hasher, 0, data_start)
        hasher.cut()
    for name, entry in stretch.tensors:
        position = _hash(window, hasher, position, data_start + entry.start)
        comparison = compare(name, entry)
        facts[name] = _read_tensor(window, name, entry, _Sinks(hasher, position, comparison))
        if comparison is not None:
            outcomes.append(comparison.outcome())
        hasher.cut()
        position = max(position, data_start + entry.end)
    if stretch.end is None and position < _hash(window, hasher, position, _FAR):
        hasher.cut()  # no tensor, so the hash is another one
    return Found(facts, outcomes, hasher.end())


def _hash(window: _Window, hasher: Hasher, begin: int, end: int) -> int:
    """Hash what belongs to no tensor; return where it ends."""
    if not hasher.is_on:
        return max(begin, end)
    for piece in window.pieces(begin, end):
        hasher.update(piece)
        begin += piece.size
    return begin


class _Sinks(NamedTuple):
    """Who else wants a tensor's bytes."""

    hasher: Hasher
    position: int
    """Up to where the file is hashed already: tensors of a faulty file may overlap."""
    comparison: TensorComparison | None


def _read_tensor(window: _Window, name: str, entry: Entry, sinks: _Sinks) -> Facts:
    hasher, hashed, comparison = sinks
    facts: Facts | None = None
    data_start, dtype = window.stretch.shard.data_start, entry.header.dtype
    position = data_start + entry.start
    piece_bytes = comparison.piece_bytes if comparison else _PIECE_BYTES
    for piece in window.pieces(position, data_start + entry.end, piece_bytes):
        hasher.update(piece[max(hashed - position, 0) :])
        if comparison is not None:
            comparison.add(piece, window.buffers)
        facts = _merged(facts, name, dtype, piece)
        position += piece.size
    return facts or Facts()


def _merged(facts: Facts | None, name: str, dtype: str, piece: Bytes) -> Facts:
    if facts is None:
        return marked(facts_of(name, dtype, piece), piece)
    return facts if is_settled(facts, name, dtype) else facts.merged(facts_of(name, dtype, piece))
