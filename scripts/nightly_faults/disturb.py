"""Each way of disturbing a night; all return how the nightly, typed again where it died, ended."""

import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import partial
from importlib import import_module
from pathlib import Path

from harness.nightly import NightOutcome, Place, collect
from harness.nightly.ray import RayWork, run_on_ray
from scripts.nightly_faults.disk import grow, small_disk, used_by
from scripts.nightly_faults.processes import (
    KINDS,
    MARK,
    WORKER,
    kill,
    kind_of,
    marked,
    wait_for_kind,
)
from scripts.nightly_faults.served import HOST
from scripts.nightly_faults.stage import CELLS, Stage

NIGHTLY = "nightly"
_SERVER = "served.py serve "
_ROOM, _LOOK_S = 64 << 20, 0.005
_BACK_S = 2 * 365 * 86_400


@dataclass(slots=True)
class Disturber:
    """Disturbs the nights of a stage at random times."""

    stage: Stage
    draws: random.Random
    seconds: float
    """That an undisturbed night takes."""
    kinds: tuple[str, ...] = (NIGHTLY, *KINDS)
    kills_a_night: int = 2
    most_kills: int = sys.maxsize
    killed: Counter[str] = field(default_factory=Counter)
    began_twice: int = 0
    ports_taken: int = 0

    def kill_some(self, night: str) -> int:
        """Kill processes, each as soon as there is one of its kind after a random time."""
        pid = self.stage.start(night)
        for number in range(self.kills_a_night):
            victim = self.draws.choice(self.kinds)
            within = self.seconds / (1 + number)
            if self.killed.total() >= self.most_kills or not self._kill(victim, pid, within):
                break
            if victim == NIGHTLY:
                self.stage.wait(pid)
                pid = self.stage.start(night)
        return self.stage.wait(pid)

    def twice(self, night: str) -> int:
        """Start a night twice, the second at a random time; every other first one is killed."""
        first = self.stage.start(night)
        self._pass(self.draws.uniform(0.0, self.seconds / 2), first)
        second = self.stage.start(night)
        self.began_twice += 1
        if self.began_twice % 2:
            return max(self.stage.wait(first), self.stage.wait(second))
        self._kill(NIGHTLY, first, self.seconds)
        self.stage.wait(first)
        return self.stage.wait(second)

    def clock_back(self, night: str) -> int:
        """Set the clock back in the midst of a night, kill the nightly, and go on in the past."""
        moment = time.monotonic() + self.draws.uniform(0.0, self.seconds)
        pid = self.stage.start(night, partial(_set_back, moment))
        self._kill(NIGHTLY, pid, self.seconds)
        self.stage.wait(pid)
        return self.stage.wait(self.stage.start(night, partial(_set_back, 0.0)))

    def port_taken(self, night: str) -> int:
        """Listen where a server is about to."""
        pid, stranger = self.stage.start(night), None
        while stranger is None and not self.stage.has_ended(pid):
            time.sleep(_LOOK_S)
            stranger = _stranger(self.stage.token)
        code = self.stage.wait(pid)
        if stranger is not None:
            self.ports_taken += 1
            stranger.close()
        return code

    def on_ray(self, night: str, address: str) -> int:
        """Kill a worker of Ray below which a cell is at work."""
        pid = self.stage.fork(partial(run_as_jobs, self.stage, night, address))
        self._kill(WORKER, pid, self.seconds)
        return self.stage.wait(pid)

    def _kill(self, victim: str, nightly: int, within: float) -> bool:
        """Kill a process of a kind at a random time; return whether there was one in time."""
        ended = partial(self.stage.has_ended, nightly)
        self._pass(self.draws.uniform(0.0, within), nightly)
        if victim == NIGHTLY:
            found = [] if ended() else [nightly]
        else:
            found = wait_for_kind(self.stage.token, victim, ended)
        was_there = bool(found) and kill(self.draws.choice(found))
        self.killed[victim] += was_there
        return was_there

    def _pass(self, seconds: float, nightly: int) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.stage.has_ended(nightly):
            time.sleep(_LOOK_S)


@contextmanager
def full_disk(
    stage: Stage, folder: Path, night: str, draws: random.Random
) -> Iterator[tuple[Stage, int]]:
    """Run a night on a disk that is too small, make it larger, and type the nightly again.

    Yields the stage that is on that disk, and how the nightly ended in the end.

    Args:
        stage: of an undisturbed night, whose size is known.
        folder: for the new stage.
        night: which.
        draws: of the size.
    """
    small = Stage(folder)
    size = draws.randrange(used_by(stage.out / "nights" / "undisturbed"))
    with small_disk(small.out, max(size, 1)):
        _must_fail(small.wait(small.start(night)), f"a disk of {size} bytes")
        grow(small.out, _ROOM)
        yield small, small.wait(small.start(night))


def run_as_jobs(stage: Stage, night: str, address: str) -> NightOutcome:
    """Run a night as `harness nightly --ray` does, with this stage's cells."""
    words = (sys.executable, "-m", "scripts.nightly_faults.stage", str(stage.folder), night)
    works = [
        RayWork(
            cell=cell,
            command=("env", f"{MARK}={stage.token}", *words, cell),
            folder=Path(__file__).resolve().parents[2],
        )
        for cell in CELLS
    ]
    run_on_ray(address, works, f"{stage.folder} {night}")
    matrix = stage.matrix
    return collect(matrix, matrix.cells, Place(stage.out, night), ())


def _set_back(moment: float) -> None:
    """Set this process's clock back at a moment of the monotonic clock."""

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "SetBack":
            since = 0.0 if time.monotonic() < moment else _BACK_S
            return cls.fromtimestamp(time.time() - since, tz)

    for name in ("harness.nightly.places", "harness.nights.standing"):
        setattr(import_module(name), "datetime", SetBack)  # noqa: B010 - no attribute mypy knows


def _stranger(token: str) -> socket.socket | None:
    """Return a socket that listens where a server is about to; None where none is that far."""
    for command in marked(token).values():
        if kind_of(command) != "server":
            continue
        port = int(command.partition(_SERVER)[2].split()[0])
        stranger = socket.socket()
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            stranger.bind((HOST, port))
            stranger.listen()
        except OSError:  # the server was faster
            stranger.close()
        else:
            return stranger
    return None


def _must_fail(code: int, where: str) -> None:
    if code == 0:
        message = f"a nightly with {where} ended with 0"
        raise RuntimeError(message)
