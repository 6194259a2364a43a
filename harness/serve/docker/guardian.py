"""Remove a run's container when the run is gone; runs as a process of its own.

    python guardian.py RUN

harness removes its container itself, however it ends, but for SIGKILL: then nobody is left who
could, for a container belongs to the daemon and outlives everything else. So a guardian waits:

* its stdin is a pipe whose other end harness holds. A byte means that the container is removed
  and the guardian may go; the end of the pipe without one means that harness has died;
* it also watches who its parent is, since a forked worker may hold the pipe open;
* it is in a session of its own and ignores Ctrl-C and SIGTERM, which are for harness.

It is started before the container is created, and finds it by its label. harness may die while
the daemon creates it, so the guardian looks again until none has appeared for a while.
"""

import os
import select
import signal
import sys
import time

import requests
from docker.client import from_env
from docker.errors import DockerException
from docker.models.containers import Container

LABEL = "harness.run"
POLL_SECONDS = 0.5
QUIET_SECONDS = 5
"""Without a container, after which none will appear any more."""
GIVE_UP_SECONDS = 300
"""Without a daemon that answers."""


def wait_for_end(parent: int) -> bool:
    """Return whether harness has died rather than said that it is done."""
    while True:
        if select.select([0], [], [], POLL_SECONDS)[0]:
            return not os.read(0, 1)
        if os.getppid() != parent:
            return True


def remove(run: str) -> int:
    """Remove every container of `run`, until none has appeared for a while; return how many."""
    removed = 0
    now = time.monotonic()
    quiet_at, give_up_at = now + QUIET_SECONDS, now + GIVE_UP_SECONDS
    while time.monotonic() < min(quiet_at, give_up_at):
        try:
            for container in _containers(run):
                container.remove(force=True, v=True)
                removed += 1
                quiet_at = time.monotonic() + QUIET_SECONDS
        except (DockerException, requests.RequestException):
            # The daemon restarts, or somebody else removes it: look again.
            quiet_at = time.monotonic() + QUIET_SECONDS
        time.sleep(POLL_SECONDS)
    return removed


def _containers(run: str) -> list[Container]:
    client = from_env()
    found: list[Container] = client.containers.list(
        all=True, filters={"label": f"{LABEL}={run}"}, ignore_removed=True
    )
    return found


def main(run: str) -> int:
    """Guard the containers of `run`."""
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if wait_for_end(parent):
        remove(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
