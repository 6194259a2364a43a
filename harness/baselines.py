"""Baselines are measured once: a folder an entry, named by the digest of all that decides it.

The store is `$HARNESS_BASELINES`, or `harness/baselines` in the user's cache. Entries hold what
scoring wrote (scorecard, samples), so a comparison can always be walked back to single answers.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import PrerequisiteError


def store() -> Path:
    """Return the folder that holds the baselines."""
    chosen = os.environ.get("HARNESS_BASELINES")
    if chosen:
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "harness" / "baselines"


@contextmanager
def entry(key: str) -> Iterator[Path]:
    """Open the entry `key` for one process at a time; it may be new, partly filled or complete.

    Raises:
        PrerequisiteError: the store cannot be written.
    """
    folder = store() / key[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "entry.lock").open("a+", encoding="utf-8")
    except OSError as error:
        message = (
            f"the baselines' folder '{store()}' cannot be written ({error.strerror}). "
            "Set HARNESS_BASELINES to a folder that can."
        )
        raise PrerequisiteError(message) from error
    with lock:
        fcntl.flock(lock.fileno(), fcntl.LOCK_EX)
        yield folder


def copy_into(folder: Path, run_folder: Path) -> None:
    """Copy a complete entry into a run directory, so that the run can be read on its own."""
    partial = run_folder.with_name(f".{run_folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("*.lock"))
    shutil.rmtree(run_folder, ignore_errors=True)
    partial.rename(run_folder)
