"""Who listens on a port of this machine, as the kernel lists it.

Any local user may listen on a port that is about to be a server's. What answers there is asked
nothing, and told no key, before it is proven to be the server: its socket is in the kernel's list
of listening sockets, and one of the server's processes holds it. As long as that process lives and
listens nobody else can, for the kernel refuses a second listener.

Source: proc(5), /proc/net/tcp; state 0A is LISTEN.
"""

import contextlib
import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"
_TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


class Listener(NamedTuple):
    """A socket that listens."""

    inode: int
    uid: int
    """Of the user whose process opened it."""

    def owner(self) -> str:
        """Return how a message names who holds it: the process where it can be seen."""
        for pid in _processes():
            if self.inode in sockets_of(pid):
                return f"process {pid} ({_name(pid)}) of user {_user(self.uid)}"
        return f"a process of user {_user(self.uid)}"


def listeners(port: int) -> tuple[Listener, ...]:
    """Return the sockets that listen on a TCP port, on any address."""
    return tuple(one for table in _TABLES for one in _listed(Path(table), port))


def sockets_of(pid: int) -> frozenset[int]:
    """Return the inodes of a process's sockets; none where they may not be seen."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    found.add(int(target[len("socket:[") : -1]))
    return frozenset(found)


def foreign(found: Iterable[Listener], pids: Iterable[int]) -> Listener | None:
    """Return the first of the listeners that none of the processes holds."""
    held = frozenset[int]().union(*(sockets_of(pid) for pid in pids))
    return next((one for one in found if one.inode not in held), None)


def _listed(table: Path, port: int) -> Iterator[Listener]:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            _, _, number = fields[1].rpartition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                yield Listener(inode=int(fields[9]), uid=int(fields[7]))


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 -- names alone


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "ended"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
