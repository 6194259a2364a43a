"""Baselines are measured once: a folder an entry, named by the digest of all that decides it.

The store is `$HARNESS_BASELINES`, or `harness/baselines` in the user's cache. An entry holds what
scoring wrote (scorecard, samples; those of the second run in `again/`), so a comparison can always
be walked back to single answers, and `entry.json`, which says in the clear what it was made from.
An entry without that file is unfinished, or of an older version; neither is listed or looked at.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

from harness import doors
from harness.artifacts import BaselineEntry, BaselineInputs, Change, load
from harness.errors import BaselineError, PrerequisiteError, RunDirectoryError, UsageError

ENTRY_FILE = "entry.json"
SCORECARD_FILE = "scorecard.json"
AGAIN = "again"
"""Folder of the second run's scores, inside the entry."""
LOCK_FILE = "entry.lock"
KEY_LENGTH = 32
"""Hexadecimal digits of a key that name the entry's folder."""


class Kept(NamedTuple):
    """One complete entry of the store."""

    key: str
    folder: Path
    entry: BaselineEntry

    @property
    def num_bytes(self) -> int:
        """Return what it takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def store() -> Path:
    """Return the folder that holds the baselines."""
    chosen = os.environ.get("HARNESS_BASELINES")
    if chosen:
        return Path(chosen)
    return doors.user_cache() / "harness" / "baselines"


def folder_of(key: str) -> Path:
    """Return the folder of the entry `key`, which need not be there.

    Single files in it may be read without opening it: each is complete or absent.
    """
    return store() / key[:KEY_LENGTH]


def check_writable() -> None:
    """Refuse a store that cannot be written, before anything is measured.

    Raises:
        PrerequisiteError: with where it is.
    """
    try:
        doors.check_folder(store())
    except UsageError as error:
        message = f"baselines are kept in '{store()}' (HARNESS_BASELINES): {error}"
        raise PrerequisiteError(message) from error


@contextmanager
def entry(key: str, *, wait: bool = True) -> Iterator[Path]:
    """Open the entry `key` for one process at a time; it may be new, partly filled or complete.

    Args:
        key: digest that names it.
        wait: whether to wait for a process that has it open.

    Raises:
        PrerequisiteError: the store cannot be written.
        BaselineError: another process has it open and `wait` is false.
    """
    folder = folder_of(key)
    try:
        lock = _lock(folder, wait=wait)
    except BlockingIOError:
        message = f"baseline '{folder.name}' is being measured or read. Try again when it is done."
        raise BaselineError(message) from None
    except OSError as error:
        message = (
            f"the baselines' folder '{store()}' cannot be written ({error.strerror}). "
            "Set HARNESS_BASELINES to a folder that can."
        )
        raise PrerequisiteError(message) from error
    with lock:
        yield folder


def _lock(folder: Path, *, wait: bool) -> TextIO:
    """Return the locked file of an entry; one that was removed meanwhile is made again."""
    path = folder / LOCK_FILE
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.fdopen(doors.open_regular(path, create=True), "r+", encoding="utf-8")
        try:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if path.exists() and path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
        except OSError:
            lock.close()
            raise
        lock.close()


def kept_baselines() -> list[Kept]:
    """Return the complete entries, the newest first."""
    found = []
    for path in store().glob(f"*/{ENTRY_FILE}"):
        if path.parent.name.startswith(".") or not (path.parent / SCORECARD_FILE).is_file():
            continue
        try:
            entry = load(BaselineEntry, path)
        except RunDirectoryError:  # of another version of harness
            continue
        found.append(Kept(path.parent.name, path.parent, entry))
    return sorted(found, key=lambda kept: (kept.entry.created, kept.key), reverse=True)


def find_baseline(prefix: str) -> Kept:
    """Return the one entry whose key begins with `prefix`.

    Raises:
        BaselineError: none does, or several do.
    """
    wanted = prefix.lower()[:KEY_LENGTH]
    found = [kept for kept in kept_baselines() if wanted and kept.key.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    problem = f"{len(found)} baselines begin" if found else f"no baseline in '{store()}' begins"
    message = f"{problem} with '{prefix}'. 'harness baseline list' shows the keys."
    raise BaselineError(message)


def remove_baseline(prefix: str) -> Kept:
    """Remove the one entry whose key begins with `prefix`, and return what it was.

    Raises:
        BaselineError: none or several begin so, or a process has it open.
    """
    kept = find_baseline(prefix)
    with entry(kept.key, wait=False) as folder:
        shutil.rmtree(folder)
    return kept


def outdated_by(inputs: BaselineInputs) -> tuple[Kept, list[Change]] | None:
    """Return the newest entry of the same model and suite by name, and why it does not fit."""
    for kept in kept_baselines():
        old = kept.entry.inputs
        if (old.model, old.suite) == (inputs.model, inputs.suite) and old.key != inputs.key:
            return kept, list(old.changes(inputs))
    return None


def copy_into(folder: Path, run_folder: Path) -> None:
    """Copy a complete entry into a run directory, so that the run can be read on its own."""
    partial = run_folder.with_name(f".{run_folder.name}.partial")
    doors.remove(partial)
    shutil.copytree(folder, partial, ignore=shutil.ignore_patterns("*.lock"))
    doors.remove(run_folder)
    partial.rename(run_folder)
