"""Several processes that do one piece of work together, a GPU each, through torch.distributed.

What they tell each other is small (ranges, counts, names, hashes) and goes through gloo on the
loopback interface, whatever they compute on: no port is open to other machines, and the same code
runs without a GPU.
"""

import json
import logging
import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import HarnessError, ReasonCode, StageError
from harness.garbage import collect_rarely
from harness.processes import end_as_parent_says

T = TypeVar("T")
_READY = "ready"
_FOREVER = timedelta(days=30)
"""A rank that dies closes its connections, which ends the others; slow ones are waited for."""
_GONE = (
    "rank {rank} of {count} was killed by signal {signal}, most likely for want of memory. "
    "Give fewer --ranks, or a smaller calibration.batch_tokens."
)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that work together."""

    number: int = 0
    count: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return those of `items` that are this process's."""
        return items[self.number :: self.count]

    def owns(self, index: int) -> bool:
        """Tell whether the work of this index is this process's."""
        return index % self.count == self.number

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over all processes."""
        return self._reduced(values, "float64", "MAX")

    def added(self, values: Sequence[int]) -> list[int]:
        """Return the sum of each value over all processes."""
        return self._reduced(values, "int64", "SUM")

    def gathered(self, value: object) -> list[Any]:
        """Return what each process gave, which must be plain JSON."""
        if self.count == 1:
            return [value]
        import torch
        from torch import distributed

        mine = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = self._reduced(
            [len(mine) if self.number == rank else 0 for rank in range(self.count)], "int64", "SUM"
        )
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        all_of_them = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(all_of_them, padded)
        return [
            json.loads(bytes(one[:size].numpy().tobytes()))
            for one, size in zip(all_of_them, sizes, strict=True)
        ]

    def _reduced(self, values: Sequence[Any], dtype: str, operation: str) -> list[Any]:
        if self.count == 1:
            return list(values)
        import torch
        from torch import distributed

        tensor = torch.tensor(values, dtype=getattr(torch, dtype))
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
        found: list[Any] = tensor.tolist()
        return found


ALONE = Ranks()


@contextmanager
def together(count: int, work: Callable[[Ranks], None]) -> Iterator[Ranks]:
    """Start `count` - 1 processes that do `work`; this one is rank 0 and does its own inside.

    `work` is a module's function or a partial of one; both must make the same calls of Ranks.

    Raises:
        HarnessError: what another rank raised.
        StageError: another rank was killed.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="harness-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        others: list[tuple[Any, Connection]] = []
        for number in range(1, count):
            ours, theirs = context.Pipe(duplex=False)
            ranks = Ranks(number, count)
            process = context.Process(target=_run, args=(work, ranks, meeting, theirs))
            process.start()
            theirs.close()
            others.append((process, ours))
        try:
            _wait_until_ready(others)
            with _joined(Ranks(0, count), meeting) as mine:
                yield mine
        except BaseException as error:
            for process, _ in others:
                process.terminate()
                process.join()
            if isinstance(error, RuntimeError):  # what gloo raises where a peer is gone
                _raise_first(others, count)
            raise
        for process, _ in others:
            process.join()
        _raise_first(others, count)


def _wait_until_ready(others: Sequence[tuple[Any, Connection]]) -> None:
    """Wait until each is about to join: one that has died before would be waited for in vain.

    Raises:
        RuntimeError: one has ended.
    """
    for process, connection in others:
        if connection not in wait([connection, process.sentinel]) or not _is_ready(connection):
            process.join()
            message = f"a rank ended with {process.exitcode} before it had begun"
            raise RuntimeError(message)


def _is_ready(connection: Connection) -> bool:
    try:
        return bool(connection.recv() == _READY)
    except EOFError:
        return False


def _raise_first(others: Sequence[tuple[Any, Connection]], count: int) -> None:
    for rank, (process, connection) in enumerate(others, start=1):
        said = _said(connection)
        if isinstance(said, HarnessError):
            raise said
        if said is not None:
            message = f"a bug in rank {rank} of {count}:\n{said}"
            raise RuntimeError(message)
        if process.exitcode < 0 and process.exitcode != -signal.SIGTERM:
            message = _GONE.format(rank=rank, count=count, signal=-process.exitcode)
            raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)


def _said(connection: Connection) -> HarnessError | str | None:
    try:
        said: HarnessError | str | None = connection.recv() if connection.poll() else None
    except EOFError:  # it has ended and said nothing
        return None
    return said


def _run(work: Callable[[Ranks], None], ranks: Ranks, meeting: Path, tell: Connection) -> None:
    """Be one of the other ranks."""
    end_as_parent_says()
    collect_rarely()
    logging.getLogger("harness").setLevel(logging.ERROR)
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks.count))
    tell.send(_READY)
    with _joined(ranks, meeting):
        try:
            work(ranks)
        except HarnessError as error:
            tell.send(error)  # before the others find the connection closed
        except Exception:  # noqa: BLE001 - the top of a process of ours: rank 0 tells
            tell.send(traceback.format_exc())


@contextmanager
def _joined(ranks: Ranks, meeting: Path) -> Iterator[Ranks]:
    from torch import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=ranks.number,
        world_size=ranks.count,
        timeout=_FOREVER,
    )
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
