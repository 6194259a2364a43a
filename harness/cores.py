"""How many of the machine's cores this process may keep busy."""

import math
import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of work that are granted in a period, and the period; the first may be `max`."""
_BOUND = len(os.sched_getaffinity(0))
"""Cores that it may run on, counted before torch is imported: OMP_PROC_BIND lets that bind the
thread that imports it to one of them, and with it all that this one starts."""


def num_cores() -> int:
    """Return how many cores it may run on, and no more than its control group is granted.

    `os.cpu_count` counts the machine's, which a batch system or Kubernetes shares among many jobs.
    """
    return max(1, min(_BOUND, _granted()))


def _granted() -> int:
    try:
        granted, _, period = _QUOTA.read_text(encoding="ascii").partition(" ")
        return math.ceil(int(granted) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # no group, no limit, or another system's file
        return os.cpu_count() or 1
