"""Processes that `torchrun` started, on one machine or several, as ranks of one piece of work.

`torchrun` gives each its number and a place to meet. They talk as `harness.ranks` does, but over
the network. The first does the run; the others wait until it calls them to do their share, or
dismisses them. Whoever fails says why in torchrun's store before its connections close, which ends
the rest.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, ReasonCode, StageError, UsageError
from harness.ranks import PeerGoneError, Ranks, sharing_cores

_RUN = "TORCHELASTIC_RUN_ID"
_MEETING = timedelta(minutes=10)
"""In which all machines must have come."""
_SILENCE = timedelta(hours=2)
"""A machine that lost its power closes no connection: who is silent for so long is gone."""
_NEWS_S = 5.0
"""In which whoever failed says why, after its connections were closed."""
_FAILED = "harness-failed"
_WORK, _DISMISSED = "work", "dismissed"
_MEETING_FILE = ".meeting"


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What torchrun says of this process."""

    number: int
    """From 0, over all machines."""
    count: int
    """Of the processes on all machines."""
    place: int
    """From 0, on this machine."""
    num_here: int
    """Of the processes on this machine."""


def launched() -> Launch | None:
    """Return what torchrun says of this process; None where it did not start it, or it alone.

    Raises:
        UsageError: what it says is no number.
    """
    if _RUN not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    try:
        number, count, place, num_here = (int(os.environ[name]) for name in names)
    except (KeyError, ValueError) as error:
        message = (
            f"{_RUN} says that torchrun started this process, and {', '.join(names)} are not all "
            f"set to numbers ({error}). Start it by torchrun, or unset {_RUN}."
        )
        raise UsageError(message) from error
    if count == 1:
        return None
    return Launch(number=number, count=count, place=place, num_here=num_here)


def ranks_here(count: int) -> int:
    """Return how many of `count` ranks are on this machine."""
    launch = launched()
    return count if launch is None else launch.num_here


class Node:
    """This process among those of torchrun."""

    def __init__(self, launch: Launch, store: Any) -> None:  # noqa: ANN401 - torch's own type
        """Take what torchrun said, and its store."""
        self.ranks = Ranks(launch.number, launch.count, launch.place)
        self._store = store
        self.has_failed = False

    def agree(self, mine: Mapping[str, str], refused: HarnessError | None) -> int:
        """Make sure that all have prepared the same work; return on how many machines they are.

        Args:
            mine: what was prepared, by what a person calls it.
            refused: why nothing was.

        Raises:
            HarnessError: `refused`.
            UsageError: another one could not prepare it, or prepared something else.
        """
        said: dict[str, Any] = {"host": socket.gethostname(), "values": dict(mine)}
        said["refused"] = None if refused is None else str(refused)
        all_of_them = self.ranks.all_gather(said)
        if refused is not None:
            raise refused
        for number, one in enumerate(all_of_them):
            who = f"process {number} of {self.ranks.count}, on host '{one['host']}'"
            if one["refused"] is not None:
                message = f"{who}: {one['refused']}"
                raise UsageError(message)
            for name, value in all_of_them[0]["values"].items():
                if (found := one["values"].get(name)) != value:
                    message = (
                        f"{who}, has another {name} ({found}) than process 0, on host "
                        f"'{all_of_them[0]['host']}' ({value}). Type the same command on every "
                        "machine, with the same versions, files and GPUs."
                    )
                    raise UsageError(message)
        return len({one["host"] for one in all_of_them})

    def help(self, work: Callable[[Ranks], None]) -> None:
        """Do `work` whenever the first process calls, until it dismisses this one.

        Raises:
            StageError: another process is gone.
        """
        with self.hearing_of_failures():
            while self.ranks.all_gather(None)[0] == _WORK:
                work(self.ranks)

    def dismiss(self) -> None:
        """Let the others end; for the first one."""
        with self.hearing_of_failures():
            self.ranks.all_gather(_DISMISSED)

    @contextmanager
    def hearing_of_failures(self) -> Iterator[None]:
        """Turn a connection that was closed into the reason that whoever closed it gave.

        Raises:
            StageError: another process is gone.
        """
        try:
            yield
        except PeerGoneError as error:
            raise self._what_failed() from error

    def leave(self, message: str, reason: str) -> None:
        """Say why this process ends, and be of no more use to the others."""
        self.tell(message, reason)
        self.has_failed = True

    def tell(self, message: str, reason: str) -> None:
        """Say why this process ends; the first one that says so is believed."""
        said = {"host": socket.gethostname(), "number": self.ranks.number}
        said |= {"message": message, "reason": str(reason)}
        with contextlib.suppress(RuntimeError):  # the store may be gone with its machine
            self._store.compare_set(_FAILED, "", json.dumps(said))

    def _what_failed(self) -> StageError:
        until = time.monotonic() + _NEWS_S
        said: dict[str, Any] = {}
        with contextlib.suppress(RuntimeError):
            while not (known := self._store.check([_FAILED])) and time.monotonic() < until:
                time.sleep(0.1)
            said = json.loads(self._store.get(_FAILED)) if known else {}
        if not said:
            message = (
                "a process of this torchrun is gone and did not say why: it was killed, most "
                "likely for want of memory, or its machine cannot be reached. Look at the output "
                "of each machine."
            )
            return StageError(message, reason=ReasonCode.SYSTEM_REFUSED)
        who = f"process {said['number']} of {self.ranks.count}, on host '{said['host']}'"
        return StageError(f"{who}: {said['message']}", reason=ReasonCode(said["reason"]))


@contextmanager
def joined(launch: Launch) -> Iterator[Node]:
    """Meet the other processes of torchrun; a failure inside is told to them.

    The first closes its connections by ending: after a failure nobody waits for anybody.

    Raises:
        StageError: they did not come.
    """
    from torch import distributed

    try:
        store, number, count = next(
            distributed.rendezvous("env://", timeout=_MEETING)  # type: ignore[attr-defined]
        )
        distributed.init_process_group(
            "gloo", store=store, rank=number, world_size=count, timeout=_MEETING
        )
        distributed.distributed_c10d._set_pg_timeout(_SILENCE)  # noqa: SLF001 - no public one
    except RuntimeError as error:
        message = (
            f"the {launch.count} processes of torchrun did not meet within {_MEETING}: {error}. "
            "GLOO_SOCKET_IFNAME names the network interface on which the machines reach each other."
        )
        raise StageError(message, reason=ReasonCode.SYSTEM_REFUSED) from error
    node = Node(launch, store)
    try:
        with sharing_cores(launch.num_here):
            yield node
    except HarnessError as error:
        node.tell(str(error), error.reason)
        raise
    except BaseException as error:
        node.tell(f"ended by {type(error).__name__}", ReasonCode.INTERRUPTED)
        raise
    if not node.has_failed:
        distributed.destroy_process_group()


@contextmanager
def called(launch: Launch) -> Iterator[Ranks]:
    """Call the other processes to do their share; for the first one, inside of `joined`."""
    ranks = Ranks(launch.number, launch.count, launch.place)
    ranks.all_gather(_WORK)
    yield ranks


def check_shared(folder: Path, ranks: Ranks) -> None:
    """Make sure that all processes see the same folder.

    Raises:
        StageError: one sees another one, or none.
    """
    file, token = folder / _MEETING_FILE, uuid.uuid4().hex
    if ranks.number == 0:
        file.write_text(token, encoding="ascii")
    token = ranks.all_gather(token)[0]
    try:
        is_same = file.read_text(encoding="ascii") == token
    except OSError:
        is_same = False
    hosts = ranks.all_gather(None if is_same else socket.gethostname())
    if ranks.number == 0:
        file.unlink()
    if apart := [host for host in hosts if host is not None]:
        message = (
            f"host '{apart[0]}' does not see '{folder}' as it is on the first machine. Name a "
            "folder that all machines share, under the same path."
        )
        raise StageError(message, reason=ReasonCode.SYSTEM_REFUSED)
