"""A cell's process: the command that a person could type, which ends with the nightly.

Told to end, the nightly tells it, and waits while it stops its servers. Where the nightly itself is
killed, the kernel tells it (PR_SET_PDEATHSIG). It is a session of its own, so that a Ctrl-C reaches
it once, through the nightly.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from harness.cores import num_cores

HARNESS = (sys.executable, "-m", "harness")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class CellProcess:
    """One process of a cell."""

    def __init__(
        self, command: Sequence[str], log: Path, *, gpus: Sequence[str], share: int, lock: int
    ) -> None:
        """Start it.

        Args:
            command: what is typed.
            log: gets all that it prints.
            gpus: by the names that CUDA_VISIBLE_DEVICES takes; none for a process without.
            share: how many cells share the cores.
            lock: an open file that it holds too, so that it is taken until the process is gone.

        Raises:
            OSError: the system refused.
        """
        self.log = log
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
        if share > 1:
            cores = max(1, num_cores() // share)
            environment.setdefault("OMP_NUM_THREADS", str(cores))
        with log.open("ab") as printed:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                env=environment,
                start_new_session=True,
                pass_fds=(lock,),
                preexec_fn=partial(_end_with, os.getpid()),  # noqa: PLW1509 -- one thread
            )

    @property
    def exit_code(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self._process.poll()

    def tell_to_end(self) -> None:
        """Let it unwind and stop what it has started."""
        self._process.terminate()

    def wait(self) -> int:
        """Wait for its end."""
        return self._process.wait()

    def last_line(self) -> str:
        """Return what it printed last."""
        return last_line(self.log)


def last_line(log: Path, *, beginning: str = "") -> str:
    """Return the last line of a log, or the last that begins so; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = (line.strip() for line in reversed(lines) if line.startswith(beginning))
    return next((line for line in said if line), "")


def _end_with(parent: int) -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before the kernel was asked
        os._exit(128 + signal.SIGTERM)
