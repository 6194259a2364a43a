"""Processes of a nightly under test: found by a mark in their environment, and killed."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MARK = "HARNESS_NIGHTLY_FAULTS"
KINDS = ("cell", "server", "evaluator", "keeper")
WORKER = "worker of Ray"
_LOOK_S = 0.02


def marked(token: str) -> dict[int, str]:
    """Return what runs with this mark in its environment: command by number."""
    found = {}
    wanted = f"{MARK}={token}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                is_ours = wanted in (entry / "environ").read_bytes().split(b"\0")
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if is_ours and command:
                    found[int(entry.name)] = command
    return found


def kind_of(command: str) -> str:
    """Return which process of a nightly a command is; empty for what only belongs to one."""
    for kind, part in zip(
        ("keeper", "server", "evaluator", "cell"),
        ("keeper.py", "served.py serve", "served.py ask", "--run-dir="),
        strict=True,
    ):
        if part in command:
            return kind
    return ""


def of_kind(token: str, kind: str) -> list[int]:
    """Return the processes of a kind; Ray's worker is the parent of the nightly in its job."""
    found = marked(token)
    if kind != WORKER:
        return [pid for pid, command in found.items() if kind_of(command) == kind]
    return [_parent(pid) for pid, command in found.items() if "nightly_faults.stage" in command]


def wait_for_kind(token: str, kind: str, has_ended: Callable[[], bool]) -> list[int]:
    """Return the processes of a kind as soon as there are some; none if the nightly ends first."""
    while not (found := of_kind(token, kind)) and not has_ended():
        time.sleep(_LOOK_S)
    return found


def kill(pid: int) -> bool:
    """Kill a process; return whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def left_after(token: str, seconds: float) -> dict[int, str]:
    """Return what still runs so many seconds later; at once where nothing does."""
    until = time.monotonic() + seconds
    while (left := marked(token)) and time.monotonic() < until:
        time.sleep(_LOOK_S)
    return left


def _parent(pid: int) -> int:
    stat = Path("/proc", str(pid), "stat").read_text(encoding="ascii", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])
