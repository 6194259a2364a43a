"""Files of weights are read before `verify` is asked, by processes of their own.

While later layers are still made, the files that are full are looked at, as the pass over the data
does it; while a gate is prepared, all of them are. What was found counts only for the bytes that it
was found in: when verify asks, every file that it rests on must be the one that was read, by inode,
size and times (harness.models.digests), the configuration and all headers must be the same bytes,
and nobody may have touched the source. What does not hold is read again, so the report is the one
that verify gives by itself.

A file that changed within the last two seconds waits: another change could leave the same times.
"""

import json
import logging
import multiprocessing
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import xxhash

from harness.cores import num_cores
from harness.engines import SIDECAR
from harness.errors import HarnessError
from harness.interrupts import ctrl_c_held
from harness.models import SETTLED_NS, FileState, find_weights, state_of, states_of
from harness.processes import end_as_parent_says
from harness.reading import bounds
from harness.resources import ResourceOwner
from harness.verify.contents import Contents, Opened, open_contents
from harness.verify.hashing import Hashed
from harness.verify.layouts import INPUT_SCALES
from harness.verify.modules import KV_LEAVES
from harness.verify.reading import DataPass, ShardScan, Task
from harness.verify.scanned import comparison_of, held, tasks_of

LEAST_BYTES = 1 << 30
"""Of a checkpoint: a smaller one is read sooner than a process has begun."""
_BYTES_EACH = 1 << 30
"""No process is begun for less of a checkpoint; each reads all headers. A GiB of NVFP4, beside its
source, keeps one busy for three seconds, and a layer of half of that is made in a tenth of them."""
_CORES_EACH = 4
"""Of a process, which has two threads: the rest is for what goes on meanwhile. To make layers on
a GPU takes five; with three here 40 layers ran half as long again as 8 of them had foretold."""
_MAX_PROCESSES = 6
"""Each holds all headers, nearly a KiB a tensor, and what it has imported."""
_NUM_THREADS = 2
"""Of a process while others work; as many as it has cores once verify waits."""
_LATE = INPUT_SCALES | frozenset(KV_LEAVES)
"""Known when calibration has ended; no weight is compared by them."""
_NO_MORE: frozenset[str] = frozenset()
_CONFIGURATIONS = ("config.json", SIDECAR)

_log = logging.getLogger("harness.verify")


class _Order(NamedTuple):
    """What one of the processes reads."""

    folders: tuple[Path, ...]
    """Where the checkpoint lies, or will lie when it is complete."""
    source: Path | None
    hashed: Hashed | None
    """What of a file is hashed; None for what the folder's manifest asks for."""
    number: int
    num_processes: int


class _Found(NamedTuple):
    """What was found in one file."""

    hashed: Hashed
    scan: ShardScan
    states: Mapping[str, FileState]
    """Of the files that it was found in."""


class _Share(NamedTuple):
    """All that one process has found."""

    basis: str
    source: Sequence[FileState]
    found: Mapping[str, _Found]


class ReadingAhead(ResourceOwner):
    """Context manager over the processes; what they have not told when it ends is lost."""

    def __init__(self, source: Path | None, *, written_here: bool = False) -> None:
        """Begin nothing yet.

        Args:
            source: what weights are compared with.
            written_here: whether harness writes the checkpoint, whose manifest comes last.
        """
        super().__init__()
        self._source = source
        self._hashed = Hashed.TENSORS if written_here else None
        self._told: list[Connection] = []
        self._asking: Connection | None = None
        """Says to all processes that verify waits; a lock would stay with one that is killed."""
        self._lock = threading.Lock()

    def begin(self, folders: tuple[Path, ...], num_bytes: int) -> None:
        """Begin to read files, each when it was added.

        Args:
            folders: where the checkpoint lies, or will lie.
            num_bytes: of its weights; little is left to verify.
        """
        if num_bytes < LEAST_BYTES or self._asking is not None:
            return
        count = num_cores() // _CORES_EACH, num_bytes // _BYTES_EACH, _MAX_PROCESSES
        try:
            self._start(folders, max(1, min(count)))
        except OSError as error:  # nothing is lost but time
            _log.info("verify: no files are read before: %s", error)
            self.end()

    def _start(self, folders: tuple[Path, ...], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        asked, self._asking = context.Pipe(duplex=False)
        self._exits.callback(self._asking.close)
        self._exits.callback(asked.close)
        for number in range(count):
            order = _Order(folders, self._source, self._hashed, number, count)
            ours, theirs = context.Pipe()
            self._exits.callback(ours.close)
            process = context.Process(
                target=_read_ahead, args=(order, theirs, asked), name=f"verify-{number}"
            )
            self._exits.callback(_end, process)
            with theirs, ctrl_c_held():
                process.start()
            self._told.append(ours)

    def add(self, names: Iterable[str]) -> None:
        """Say that files are complete, from any thread."""
        complete = frozenset(names)
        with self._lock:
            for told in self._told:
                with suppress(OSError):  # it has ended: its files are read when verify asks
                    told.send(complete)

    def take(self, opened: Opened, tasks: Sequence[Task]) -> Mapping[str, ShardScan]:
        """Return what was found, by file: of those that are still what was read.

        Whatever has not been read yet is read now. A second call returns nothing.

        Args:
            opened: the complete checkpoint.
            tasks: what is to be done with each of its files.
        """
        origin = opened.contents.origin
        if self._asking is None or not self._told:
            return {}
        if (origin.directory if origin else None) != self._source:
            self.end()
            return {}
        self._asking.send_bytes(b"now")
        self.add(_NO_MORE)
        shares = [share for told in self._told if (share := _share_of(told)) is not None]
        self._told.clear()
        directory = opened.contents.directory
        basis = _basis_of(opened.contents) if shares else ""
        source = states_of(self._source) if shares and self._source is not None else []
        wanted = {task.shard.name: task.hashed for task in tasks}
        known = {
            name: found.scan
            for share in shares
            if (share.basis, share.source) == (basis, source)
            for name, found in share.found.items()
            if wanted.get(name) is found.hashed and _are_these(found.states, directory)
        }
        if shares:
            _log.info("verify: %d of %d files were read before", len(known), len(tasks))
        return known

    def end(self) -> None:
        """End the processes; what they have not told is lost."""
        self._told.clear()
        self._exits.close()


@contextmanager
def reading_checkpoint(directory: Path, source: Path | None) -> Iterator[ReadingAhead]:
    """Read all files of a checkpoint while the context lasts."""
    with ReadingAhead(source) as ahead:
        with suppress(OSError):  # verify says what is wrong
            names = find_weights(directory).files
            ahead.begin((directory,), sum((directory / name).stat().st_size for name in names))
            ahead.add(names)
        yield ahead


def _end(process: SpawnProcess) -> None:
    if process.pid is not None:  # it was started
        process.terminate()
        process.join()


def _share_of(told: Connection) -> _Share | None:
    """Return what a process has found; None of one that has ended."""
    try:
        share = told.recv()
    except (EOFError, OSError):
        return None
    return share if isinstance(share, _Share) else None


def _are_these(states: Mapping[str, FileState], directory: Path) -> bool:
    """Return whether files are those that were read, untouched since."""
    try:
        return all(state_of((directory / name).stat()) == state for name, state in states.items())
    except OSError:
        return False


def _basis_of(contents: Contents) -> str:
    """Return the hash of what decides what a file's bytes are held against."""
    expected = json.dumps(dict(contents.expected)).encode()
    return _headers_of(contents.directory) + xxhash.xxh3_128_hexdigest(expected)


def _headers_of(directory: Path) -> str:
    """Return the hash of the configuration and of all headers."""
    found = xxhash.xxh3_128()
    for name in _CONFIGURATIONS:
        path = directory / name
        found.update(path.read_bytes() if path.is_file() else b"")
        found.update(b"\0")
    for name in find_weights(directory).files:
        with (directory / name).open("rb") as file:
            size = file.read(8)
            found.update(name.encode() + b"\0" + size)
            found.update(file.read(min(int.from_bytes(size, "little"), bounds.HEADER_BYTES)))
    return found.hexdigest()


def _read_ahead(order: _Order, told: Connection, asked: Connection) -> None:
    """Be one of the processes."""
    end_as_parent_says()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is cleaned up, so it ends at once
    logging.getLogger("harness").setLevel(logging.ERROR)
    whole = _whole_files(told)  # once: verify asks only once
    for directory in order.folders:  # a folder may get its last name while it is opened
        # whoever reads it later says what is wrong
        with suppress(HarnessError, OSError, MemoryError):
            share = _read_share(order, directory, whole, asked)
            if share is not None:
                told.send(share)
                return


def _whole_files(told: Connection) -> Iterator[frozenset[str]]:
    """Yield the names of files as they become complete, until verify asks."""
    with suppress(EOFError):
        while names := told.recv():
            yield names


def _read_share(
    order: _Order, directory: Path, whole: Iterator[frozenset[str]], asked: Connection
) -> _Share | None:
    source = states_of(order.source) if order.source is not None else []
    before = _headers_of(directory)
    opened = open_contents(directory, order.source)
    basis = _basis_of(opened.contents)
    if not basis.startswith(before):  # somebody writes there
        return None
    found: dict[str, _Found] = {}
    needed = _needed(opened.contents)
    tasks = tasks_of(opened.contents)
    readable = {task.shard.name for task in tasks}
    waiting = [
        task if order.hashed is None else task._replace(hashed=order.hashed)
        for task in tasks[order.number :: order.num_processes]
        if needed[task.shard.name] <= readable
    ]
    there: set[str] = set()
    with held(opened):
        for names in whole:
            there |= names
            ready = [task for task in waiting if needed[task.shard.name] <= there]
            waiting = [task for task in waiting if not needed[task.shard.name] <= there]
            found |= _read_files(opened, ready, needed, asked, _NUM_THREADS)
        own = max(_NUM_THREADS, num_cores() // order.num_processes)
        found |= _read_files(opened, waiting, needed, asked, own)
    return _Share(basis, source, found)


def _needed(contents: Contents) -> Mapping[str, set[str]]:
    """Return the files that must be complete before each can be read: a layer may lie in two."""
    needed: dict[str, set[str]] = defaultdict(set)
    for module in contents.modules.values():
        together = {header.shard for leaf, header in module.items() if leaf not in _LATE}
        for name in together:
            needed[name] |= together
    return {shard.name: needed[shard.name] | {shard.name} for shard in contents.shards}


def _read_files(
    opened: Opened,
    tasks: Sequence[Task],
    needed: Mapping[str, set[str]],
    asked: Connection,
    num_threads: int,
) -> Iterator[tuple[str, _Found]]:
    """Yield what is found in each file that nobody changes meanwhile."""
    compare = partial(comparison_of, opened.contents)
    for task in tasks:
        names = needed[task.shard.name]
        states = _settled(opened, names, asked)
        reading = DataPass([task]).shards(opened.stored, compare, num_threads=num_threads)
        scan = next(reading)
        if {name: opened.stored.state_of(name) for name in names} == states:
            yield task.shard.name, _Found(task.hashed, scan, states)


def _settled(opened: Opened, names: Iterable[str], asked: Connection) -> Mapping[str, FileState]:
    """Return the states of files that are no longer new, or that verify waits for."""
    while True:
        states = {name: opened.stored.state_of(name) for name in names}
        newest = max(state.changed_ns for state in states.values())
        wait_ns = newest + SETTLED_NS - time.time_ns()
        if wait_ns <= 0 or asked.poll(wait_ns / 1e9):
            return states
