"""Fuzz some readers in this process, under limits, and print what happened as JSON lines.

    python -m tests.fuzz.limited_run EXAMPLES SEED [READER ...]

EXAMPLES are shared among all readers. Memory may grow by 2 GB beyond what is there when all is
imported, and an example may take 10 s of a processor; more of either is a failure, as is every
exception that is no HarnessError. SEED is 0 for the same examples each time.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from hypothesis import HealthCheck, Phase, given, seed, settings

from harness.errors import HarnessError
from tests.fuzz.targets import TARGETS, TOTAL_SHARES, Target, contents_of

MEMORY_BYTES = 2 << 30
CPU_S = 10


class Figures:
    """What happened to one reader."""

    def __init__(self) -> None:
        self.examples = self.refused = 0
        self.slowest_cpu_s = 0.0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count an example and what it takes."""
        self.examples += 1
        started = _cpu_s()
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
        try:
            yield
        except HarnessError:
            self.refused += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.slowest_cpu_s = max(self.slowest_cpu_s, _cpu_s() - started)


def fuzz(target: Target, folder: Path, *, examples: int, number: int) -> dict[str, object]:
    """Fuzz one reader; return its figures, and the traceback of what went wrong, if anything."""
    folder.mkdir()
    target.make(folder)
    begun_mb = _peak_mb()
    good = {name: (folder / name).read_bytes() for name in target.varied}
    figures = Figures()

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=number == 0,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(content=contents_of(target, folder))
    def read(content: tuple[str, bytes]) -> None:
        name, text = content
        (folder / name).write_bytes(text)
        try:
            with figures.one():
                target.read(folder)
        finally:
            (folder / name).write_bytes(good[name])

    problem = ""
    try:
        with contextlib.suppress(HarnessError):
            target.read(folder)  # what is read once takes no part in the figures
        (read if number == 0 else seed(number)(read))()
    except Exception:  # noqa: BLE001 -- whatever it is, it is what is looked for
        problem = traceback.format_exc()
    return {
        "reader": target.name,
        "examples": figures.examples,
        "refused": figures.refused,
        "slowest_cpu_s": round(figures.slowest_cpu_s, 2),
        "grown_mb": _peak_mb() - begun_mb,
        "problem": problem,
    }


def main(examples: int, number: int, names: list[str]) -> None:
    """Fuzz the readers of these names, all where there are none."""
    chosen = [target for target in TARGETS if not names or target.name in names]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGPROF, _too_slow)
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = os.environ["HARNESS_BASELINES"] = str(Path(name) / "kept")
        _limit_memory()
        for index, target in enumerate(chosen):
            count = -(-examples * target.share // TOTAL_SHARES)
            found = fuzz(target, Path(name) / str(index), examples=count, number=number)
            print(json.dumps(found), flush=True)  # noqa: T201 -- what this is for


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _too_slow(signum: int, frame: FrameType | None) -> NoReturn:
    del signum, frame
    message = f"an example took more than {CPU_S} s of a processor"
    raise AssertionError(message)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
