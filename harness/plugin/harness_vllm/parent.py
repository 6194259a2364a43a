"""vLLM's processes end with the one that started them.

vLLM's server ends its engine, and the engine its workers, when they are told to end. Killed with
SIGKILL the server tells nobody, and an engine that waits for requests keeps its memory and its
GPU for ever. harness's keepers see to that, but they may be killed too. So every process that vLLM
starts watches its parent itself, by its number and start: multiprocessing's own `parent.join()`
waits on a pipe that a forked child holds open. Standard library only.
"""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 3
"""Between SIGTERM, at which vLLM removes its shared memory, and SIGKILL."""
_STARTED_FIELD = 19
"""Of /proc/PID/stat after the name: clock ticks from boot to the process's start."""
_watching: set[int] = set()
"""This process's number, once it watches: a fork starts without the thread."""


def end_with_parent() -> None:
    """Let this process end when the one that started it has; in the first of all do nothing.

    The parent is the process that asked for this one, also where another has forked it.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None or os.getpid() in _watching:
        return
    _watching.add(os.getpid())
    arguments = (parent.pid, _started(parent.pid))
    threading.Thread(target=_watch, args=arguments, name="harness-parent", daemon=True).start()


def _watch(parent: int, started: str | None) -> None:
    while started is not None and _started(parent) == started:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _started(pid: int) -> str | None:
    """Return when a process started; None where none runs any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[_STARTED_FIELD]
