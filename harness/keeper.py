"""Keep a server and everything it started from outliving the run; runs as a process of its own.

    python keeper.py GRACE_SECONDS COMMAND...

A server such as vLLM is a tree of processes, and none of them may be left when harness ends, not
even when harness is killed with SIGKILL and can do nothing any more. So a keeper stands between:

* its stdin is a pipe whose other end only harness holds: the pipe ends when harness does, however
  it does; the keeper also watches who its parent is, since a forked worker may hold the pipe open.
  A byte in it means that the server is worth no grace: while it loads, none ends by itself;
* it is a subreaper: processes whose parent has died become its children, so it sees the whole
  tree, and it ends only when the tree is gone: SIGTERM first, SIGKILL after the grace;
* the server runs in a session of its own, so Ctrl-C at a terminal reaches harness alone.

The keeper itself may be killed. Two are therefore started, one inside the other, by giving this
file as the command of itself: whichever is killed, the other sees it and ends the tree. Last,
the server dies with its keeper (PR_SET_PDEATHSIG), were both killed at one moment.

It prints `pid N`, the server's, and ends with the server's status (128 + signal as shells do).
Linux and the standard library only: it is run with Python's -I and -S, and imports nothing of
harness.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.1
ORPHAN_SECONDS = 1
"""What processes that outlive the server get between SIGTERM and SIGKILL."""
USAGE = 2

_libc = ctypes.CDLL(None, use_errno=True)


def descendants(root: int) -> list[int]:
    """Return the processes below `root`, without zombies."""
    children: dict[int, list[int]] = {}
    alive: set[int] = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat = (entry / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        # The name in parentheses may itself hold spaces and parentheses.
        state, parent = stat.rpartition(")")[2].split()[:2]
        children.setdefault(int(parent), []).append(int(entry.name))
        if state not in "ZX":
            alive.add(int(entry.name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return [pid for pid in found if pid in alive]


class Keeper:
    """One server and the tree below it."""

    def __init__(self, command: list[str], grace_seconds: float) -> None:
        self.command = command
        self.grace_seconds = grace_seconds
        self.parent = os.getppid()
        self.is_told_to_stop = False
        self.status: int | None = None
        self.server = 0

    def run(self) -> int:
        """Keep the server until it ends or must end; return its status."""
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        self._start()
        while self.status is None and not self._must_stop():
            self._reap()
        self._end_tree()
        return self.status if self.status is not None else 128 + signal.SIGKILL

    def _start(self) -> None:
        is_keeper = __file__ in self.command[:4]
        process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE if is_keeper else subprocess.DEVNULL,
            stdout=None if is_keeper else sys.stderr,
            start_new_session=True,
            preexec_fn=None if is_keeper else _die_with_parent,  # noqa: PLW1509 -- one thread
        )
        # Held, for subprocess reaps what nobody holds, and with it goes the status of a command
        # that has ended by now: this would wait for it for ever.
        self.process = process
        self.server = process.pid
        self.pipe = process.stdin  # held open: the inner keeper watches it
        if not is_keeper:
            print(f"pid {process.pid}", flush=True)  # noqa: T201 -- harness reads it

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self.is_told_to_stop = True

    def _must_stop(self) -> bool:
        readable = select.select([0], [], [], POLL_SECONDS)[0]
        told = os.read(0, 64) if readable else b""
        if told:
            self._spare_the_grace(told)
        return bool(readable) or self.is_told_to_stop or os.getppid() != self.parent

    def _spare_the_grace(self, told: bytes) -> None:
        """End at once what has nothing to lose; the inner keeper is told before it is ended."""
        if self.pipe is None:
            self.grace_seconds = 0.0
            return
        try:
            self.pipe.write(told)
            self.pipe.flush()
        except BrokenPipeError:  # it has ended
            return

    def _reap(self) -> None:
        """Collect what has died, the server's status among it."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.server:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def _end_tree(self) -> None:
        """Return when no process below is left."""
        # The server is asked first: it knows how to end its own workers.
        if self.status is None:
            _signal([self.server], signal.SIGTERM)
        if self.pipe is not None:
            self.pipe.close()
        give_up = time.monotonic() + self.grace_seconds
        while self.status is None and time.monotonic() < give_up:
            self._reap()
            time.sleep(POLL_SECONDS)
        _signal(descendants(os.getpid()), signal.SIGTERM)
        orphans_end = min(time.monotonic() + ORPHAN_SECONDS, give_up)
        while left := descendants(os.getpid()):
            if time.monotonic() >= orphans_end:
                _signal(left, signal.SIGKILL)
            time.sleep(POLL_SECONDS / 2)
            self._reap()
        self._reap()


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def main(arguments: list[str]) -> int:
    """Keep `COMMAND...`."""
    if len(arguments) < 2:  # noqa: PLR2004 -- a grace and a command
        sys.stderr.write("usage: keeper.py GRACE_SECONDS COMMAND...\n")
        return USAGE
    try:
        return Keeper(arguments[1:], float(arguments[0])).run()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
