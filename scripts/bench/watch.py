"""Run a command and watch its memory."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.calibrate.memory import host_bytes

_EVERY_S = 0.1


class Watched(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    peak_host_gib: float
    """Anonymous memory of the process and of those that it started, together; pages of mapped files
    do not count."""
    seconds: float


def put_out_of_memory(folder: Path) -> None:
    """Let the system forget what it holds of a folder's files, so that the disk is read."""
    if sys.platform != "linux":
        return
    os.sync()  # only what is on the disk is forgotten
    for path in folder.iterdir():
        file = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def is_in_memory(folder: Path) -> bool:
    """Return whether a folder lies in a file system that is memory."""
    above = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    mounts = (one for one in psutil.disk_partitions(all=True) if one.mountpoint in above)
    nearest = max(mounts, key=lambda one: len(one.mountpoint), default=None)
    return nearest is not None and nearest.fstype in ("tmpfs", "ramfs")


def _family(number: int) -> list[int]:
    """Return a process and all that it and they have started."""
    try:
        return [number, *(child.pid for child in psutil.Process(number).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def run_watched(command: Sequence[str], *, environment: Mapping[str, str]) -> Watched:
    """Run a command to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(environment),
    )
    peak = 0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(_EVERY_S):
            peak = max(peak, sum(map(host_bytes, _family(process.pid))))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    output, _ = process.communicate()
    ended.set()
    thread.join()
    seconds = time.perf_counter() - started
    return Watched(process.returncode, output, peak / (1 << 30), seconds)
