"""Several processes that do one piece of work together, a GPU each, through torch.distributed.

What they tell each other is small (ranges, counts, names, hashes) and goes through gloo on the
loopback interface, whatever they compute on: no port is open to other machines, and the same code
runs without a GPU.
"""

import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from harness import refusals
from harness.cores import num_cores
from harness.errors import HarnessError, ReasonCode, StageError
from harness.garbage import collect_rarely
from harness.interrupts import ctrl_c_held
from harness.processes import end_as_parent_says

T = TypeVar("T")
_READY = "ready"
_FOREVER = timedelta(days=30)
"""Slow ranks are waited for; one that dies closes its connections, which ends the others."""
_MEETING = timedelta(minutes=5)
"""In which all that are ready must be connected with each other."""
_GRACE_S = 10.0
"""Between SIGTERM and SIGKILL: who waits inside of gloo hears the latter alone."""
_NEWS_S = 5.0
"""In which the system tells which rank is gone, after its connections were closed."""
_LOOK_S = 0.002
_GONE = (
    "rank {rank} of {count} was killed by signal {signal}, most likely for want of memory. "
    "Give fewer --ranks, or a smaller calibration.batch_tokens."
)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that work together."""

    number: int = 0
    count: int = 1
    place: int | None = None
    """Among those of this machine, where they are on several."""

    @property
    def gpu(self) -> int:
        """Which of this machine's GPUs is this process's."""
        return self.number if self.place is None else self.place

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return those of `items` that are this process's."""
        return items[self.number :: self.count]

    def owns(self, index: int) -> bool:
        """Tell whether the work of this index is this process's."""
        return index % self.count == self.number

    def all_max(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over all processes."""
        return self._reduced(values, "float64", "MAX")

    def all_sum(self, values: Sequence[int]) -> list[int]:
        """Return the sum of each value over all processes."""
        return self._reduced(values, "int64", "SUM")

    def all_gather(self, value: object) -> list[Any]:
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
        _finish(distributed.all_gather(all_of_them, padded, async_op=True))
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
        how = getattr(distributed.ReduceOp, operation)
        _finish(distributed.all_reduce(tensor, how, async_op=True))
        found: list[Any] = tensor.tolist()
        return found


ALONE = Ranks()


class PeerGoneError(RuntimeError):
    """Another rank's connection was closed, or nothing came over it for too long."""


def _finish(work: Any) -> None:  # noqa: ANN401 - torch's own type, and torch is not imported here
    """Wait for the others where signals are heard: gloo itself waits outside of Python."""
    while not work.is_completed():
        time.sleep(_LOOK_S)
    try:
        work.wait()
    except RuntimeError as error:
        raise PeerGoneError(str(error)) from error


@contextmanager
def together(count: int, work: Callable[[Ranks], None]) -> Iterator[Ranks]:
    """Start `count` - 1 processes that do `work`; this one is rank 0 and does its own inside.

    `work` is a module's function or a partial of one; both must make the same calls of Ranks.

    Raises:
        HarnessError: what another rank raised.
        StageError: another rank was killed.
    """
    with tempfile.TemporaryDirectory(prefix="harness-ranks-") as folder:
        meeting = Path(folder) / "meeting"
        others = _Others(count, work, meeting)
        try:
            others.wait_until_ready()
            with sharing_cores(count), _joined(Ranks(0, count), meeting) as mine:
                try:
                    yield mine
                except BaseException:
                    others.end()  # before gloo is left, which would wait for them
                    raise
        except RuntimeError:  # what gloo raises where a peer is gone
            others.end()
            others.raise_worst()
            raise
        except BaseException:
            others.end()
            raise
        others.join()
        others.raise_worst()


class _Others:
    """The processes of all ranks but the first."""

    def __init__(self, count: int, work: Callable[[Ranks], None], meeting: Path) -> None:
        """Start them."""
        self._count = count
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        self._codes: list[int | None] | None = None
        """With which those ended that nobody has told to."""
        context = multiprocessing.get_context("spawn")
        for number in range(1, count):
            ours, theirs = context.Pipe(duplex=False)
            arguments = work, Ranks(number, count), meeting, theirs
            process = context.Process(target=_run, args=arguments)
            with ctrl_c_held():
                process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)

    def wait_until_ready(self) -> None:
        """Wait until each is about to join: one that has died before would be waited for in vain.

        Raises:
            RuntimeError: one has ended.
        """
        for process, connection in zip(self._processes, self._connections, strict=True):
            if connection not in wait([connection, process.sentinel]) or not _is_ready(connection):
                process.join()
                message = f"a rank ended with {process.exitcode} before it had begun"
                raise RuntimeError(message)

    def join(self) -> None:
        """Wait until all have ended."""
        for process in self._processes:
            process.join()
        self._codes = [process.exitcode for process in self._processes]

    def end(self) -> None:
        """End all of them, and return when they are gone."""
        if self._codes is not None:
            return
        if isinstance(sys.exception(), RuntimeError):
            gone = wait([process.sentinel for process in self._processes], _NEWS_S)
            for process in self._processes:
                if process.sentinel in gone:
                    process.join()  # its pipes are closed a moment before its exit code is known
        self._codes = [process.exitcode for process in self._processes]
        for process in self._processes:
            process.terminate()
        until = time.monotonic() + _GRACE_S
        for process in self._processes:
            process.join(max(0.0, until - time.monotonic()))
        for process in self._processes:
            process.kill()
            process.join()

    def raise_worst(self) -> None:
        """Raise what explains their ends: where one is gone, the rest fail for want of it."""
        said = list(map(_said, self._connections))
        if error := next((one for one in said if isinstance(one, HarnessError)), None):
            raise error
        for rank, code in enumerate(self._codes or (), start=1):
            if code is not None and code < 0:
                message = _GONE.format(rank=rank, count=self._count, signal=-code)
                raise StageError(message, reason=ReasonCode.OUT_OF_MEMORY)
        for rank, one in enumerate(said, start=1):
            if one is not None:
                message = f"a bug in rank {rank} of {self._count}:\n{one}"
                raise RuntimeError(message)


def _is_ready(connection: Connection) -> bool:
    try:
        return bool(connection.recv() == _READY)
    except EOFError:
        return False


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
    try:
        with sharing_cores(ranks.count):
            tell.send(_READY)
            _work(work, ranks, meeting, tell)
    except SystemExit as told:
        os._exit(int(str(told.code)))  # all is unwound but gloo, which would wait


def _work(work: Callable[[Ranks], None], ranks: Ranks, meeting: Path, tell: Connection) -> None:
    with _joined(ranks, meeting):
        try:
            work(ranks)
        except HarnessError as error:
            tell.send(error)  # before the others find the connection closed
        except OSError as error:
            tell.send(refusals.running(error))
        except Exception:  # noqa: BLE001 - the top of a process of ours: rank 0 tells
            tell.send(traceback.format_exc())


@contextmanager
def sharing_cores(count: int) -> Iterator[None]:
    """Let torch use this process's share of the machine's cores: each rank as many."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(1, num_cores() // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _joined(ranks: Ranks, meeting: Path) -> Iterator[Ranks]:
    """Be in torch's process group; whatever happens, it is left again."""
    from torch import distributed

    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        distributed.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=ranks.number,
            world_size=ranks.count,
            timeout=_MEETING,
        )
        _finish(distributed.barrier(async_op=True))  # or one that fails would be gone too early
        # From here on a slow one is waited for.
        distributed.distributed_c10d._set_pg_timeout(_FOREVER)  # noqa: SLF001 - no public one
        yield ranks
    except SystemExit:  # told to end: gloo would wait for the others
        raise
    except BaseException:
        _leave()
        raise
    _leave()


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
    else:  # a peer was gone before all were connected; groups find each other by their number
        distributed.distributed_c10d._world.group_count = 0  # noqa: SLF001 - as above
