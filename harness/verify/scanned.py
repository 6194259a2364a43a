"""What the one pass over the data finds, put together in the order of the files.

Several processes share it where there is much. Files that were read before (`ahead.py`) are not
read again.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from harness.engines import Engine
from harness.processes import each
from harness.verify.compare import Comparison, TensorComparison
from harness.verify.contents import Contents, Opened, open_contents
from harness.verify.dequantize import can_dequantize
from harness.verify.folds import settle_folds
from harness.verify.hashing import Hashed, hash_file
from harness.verify.modules import is_quantized
from harness.verify.reading import DataPass, Found, ShardScan, Task, num_processes
from harness.verify.scaled import find_misscaled
from harness.verify.scan import Facts
from harness.verify.shards import Entry, Shard

_NO_MEMORY = "Free some memory and type the command again."
_log = logging.getLogger("harness.verify")


class ReadBefore(Protocol):
    """Processes that have read files before."""

    def take(self, opened: Opened, tasks: Sequence[Task]) -> Mapping[str, ShardScan]:
        """Return what was found, by file: of those that are still what was read."""


def read_contents(
    directory: Path,
    *,
    source: Path | None = None,
    engine: Engine | None = None,
    before: ReadBefore | None = None,
) -> Contents:
    """Read headers, configuration and, in one pass, the data.

    Raises:
        ModelError: the folder, or that of the source, holds no checkpoint.
        StageError: a process that reads a part was killed.
    """
    opened = open_contents(directory, source, engine)
    headers = opened.contents
    facts: dict[str, Facts] = {}
    hashes: dict[str, str] = {}
    tasks = tasks_of(headers)
    with held(opened) as comparison:
        for number, (task, scan) in enumerate(_scans(opened, tasks, before), start=1):
            _log.info("verify: file %d of %d, %s", number, len(tasks), task.shard.name)
            facts |= scan.facts
            if scan.hash is not None:
                hashes[task.shard.name] = scan.hash
            if comparison:
                comparison.collect(scan.outcomes)
        if comparison:
            settle_folds(headers, comparison)
            find_misscaled(comparison)
    for name in headers.manifest or {}:
        path = headers.directory / name
        if name not in hashes and path.is_file() and path.suffix != ".safetensors":
            hashes[name] = hash_file(path)
    return replace(headers, facts=facts, hashes=hashes)


@contextmanager
def held(opened: Opened) -> Iterator[Comparison | None]:
    """Hold all files open; give what compares them with the source, if there is one."""
    origin = opened.contents.origin
    with opened.stored, origin.comparison.source if origin else nullcontext():
        yield origin.comparison if origin else None


def _scans(
    opened: Opened, tasks: Sequence[Task], before: ReadBefore | None
) -> Iterator[tuple[Task, ShardScan]]:
    known = before.take(opened, tasks) if before is not None else {}
    rest = [task for task in tasks if task.shard.name not in known]
    reading = _read(opened, rest)
    for task in tasks:
        scan = known.get(task.shard.name)
        yield task, scan if scan is not None else next(reading)


def _read(opened: Opened, tasks: Sequence[Task]) -> Iterator[ShardScan]:
    """Yield what is found in each file."""
    headers, reading = opened.contents, DataPass(tasks)
    count = num_processes(_num_bytes(opened, tasks))
    if count == 1:
        yield from reading.shards(opened.stored, partial(comparison_of, headers))
        return
    source = headers.origin.directory if headers.origin else None
    names = frozenset(task.shard.name for task in tasks)
    work = partial(_read_share, headers.directory, source, names, count)
    with closing(each(work, range(count), jobs=count, advice=_NO_MEMORY)) as shares:
        found = [share for _, share in sorted(shares)]
    yield from reading.shards_of(found)


def _read_share(
    directory: Path, source: Path | None, names: frozenset[str], count: int, number: int
) -> tuple[int, Sequence[Found]]:
    """Be process `number` of `count`."""
    opened = open_contents(directory, source)
    tasks = [task for task in tasks_of(opened.contents) if task.shard.name in names]
    compare, reading = partial(comparison_of, opened.contents), DataPass(tasks)
    with held(opened):
        return number, reading.share(opened.stored, compare, number=number, count=count)


def _num_bytes(opened: Opened, tasks: Sequence[Task]) -> int:
    """Return the size of all that is read: of the files, and about that of their source."""
    num_bytes = sum(map(_bytes_of, tasks))
    origin = opened.contents.origin
    if origin is None or not num_bytes:
        return num_bytes
    share = num_bytes / sum(header.num_bytes for header in opened.contents.tensors.values())
    source = origin.comparison.source.headers
    return num_bytes + int(share * sum(header.num_bytes for header in source.values()))


def _bytes_of(task: Task) -> int:
    return sum(entry.header.num_bytes for entry in task.shard.entries.values())


def tasks_of(headers: Contents) -> Sequence[Task]:
    """Return what is to be done with each file that is whole."""
    return [_task(headers, shard) for shard in headers.shards if shard.problem is None]


def _task(headers: Contents, shard: Shard) -> Task:
    hashed = Hashed.FILE if shard.name in (headers.manifest or {}) else Hashed.NOTHING
    if shard.name in headers.meant:
        hashed = Hashed.TENSORS
    return Task(shard, hashed)


def comparison_of(contents: Contents, name: str, entry: Entry) -> TensorComparison | None:
    """Return what compares a tensor with the source while it is read."""
    if contents.origin is None:
        return None
    comparison = contents.origin.comparison
    module, leaf = contents.place_of(name)
    if not is_quantized(contents.modules[module]):
        return comparison.copied(name, entry)
    layout, algo = contents.layout_of(module), contents.algo_of(module)
    if layout and algo and can_dequantize(algo) and leaf == layout.tensors["weight"].leaf:
        return comparison.quantized(module, algo, layout)
    return None
