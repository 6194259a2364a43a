"""Which run a container belongs to, written on its labels, and whether that run still lives.

The guardian removes a run's container when the run dies. Should both be killed, the next run on
this machine finds the container by its labels and removes it. It must never remove one of a run
that lives: a process number means something only on one host, since one boot, in one namespace
of processes, and as long as no other process has taken the number.
"""

import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.processes import mark_of

RUN_LABEL = "harness.run"
_PREFIX = "harness.owner."


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A process that runs harness."""

    host: str
    boot: str
    namespace: str
    pid: str
    started: str

    def labels(self) -> dict[str, str]:
        """Return them as a container carries them, with a name for this one server."""
        own = {f"{_PREFIX}{field}": getattr(self, field) for field in self.__slots__}
        return {RUN_LABEL: uuid.uuid4().hex, **own}


def this_process() -> Owner:
    """Return the owner of what this process starts."""
    pid = os.getpid()
    return Owner(
        host=platform.node(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
        namespace=str(Path("/proc/self/ns/pid").readlink()),
        pid=str(pid),
        started=_started(pid) or "",
    )


def is_stale(labels: Mapping[str, str], here: Owner) -> bool:
    """Return whether the owner named by `labels` is surely dead, as seen from `here`."""
    owner = {field: labels.get(f"{_PREFIX}{field}", "") for field in here.__slots__}
    if not all(owner.values()) or owner["host"] != here.host:
        return False
    if owner["boot"] != here.boot:
        return True
    if owner["namespace"] != here.namespace or not owner["pid"].isdecimal():
        return False
    return _started(int(owner["pid"])) != owner["started"]


def _started(pid: int) -> str | None:
    """Return when a process started; None where there is none."""
    mark = mark_of(pid)
    return None if mark is None else mark.started
