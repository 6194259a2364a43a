"""Run a command and watch its memory."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_EVERY_S = 0.05


class Watched(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    peak_host_gib: float
    """Anonymous memory of the process alone; pages of mapped files do not count."""


def run_watched(command: Sequence[str], *, environment: Mapping[str, str]) -> Watched:
    """Run a command to its end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(environment),
    )
    peak_kib = 0
    ended = threading.Event()

    def look() -> None:
        nonlocal peak_kib
        while not ended.wait(_EVERY_S):
            peak_kib = max(peak_kib, _anonymous_kib(process.pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    output, _ = process.communicate()
    ended.set()
    thread.join()
    return Watched(process.returncode, output, peak_kib / (1 << 20))


def _anonymous_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon:")), 0)
