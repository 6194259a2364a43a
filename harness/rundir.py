"""The run directory: one writer at a time, finished stages are found again.

A stage has a key, the digest of everything that it is made from. Its noun lies in one JSON file
that holds the key, so typing a command again runs just those stages whose key has changed or
whose file is not there. A file is complete or absent (harness.artifacts.store), hence a run that
was killed at any moment can be continued.
"""

import errno
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter

from harness.artifacts import Recipe, Trial, load, made_from, save, to_json, write_atomically
from harness.errors import DiskFullError, RunDirectoryError
from harness.garbage import collect

T = TypeVar("T")
RECIPE_FILE = "recipe.yaml"
TIMES_FILE = "stage_seconds.json"
_LOCK_FILE = "run.lock"
_log = logging.getLogger("harness.run")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Generic[T]):
    """What a stage is called, where its noun lies, and how it is read and written."""

    name: str
    file: str
    noun: type[T]
    outputs: tuple[str, ...] = ()
    """What else must be there for the stage to count as finished."""
    read: Callable[[Path], T] | None = None
    """Other than load()."""
    write: Callable[[T, Path, str], None] | None = None
    """Other than save(); gets the noun, the path and the key."""


@dataclass(slots=True)
class RunDirectory:
    """An open, locked run directory."""

    path: Path
    nouns: dict[str, Any] = field(default_factory=dict)
    """What the stages have made or found so far, by stage."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage, the last time that it ran."""
    current: str = "start"
    """The stage that is running."""

    def stage(self, stage: Stage[T], *, key: str, make: Callable[[], T]) -> T:
        """Return the stage's noun: from the directory if it was made from `key`, else from `make`.

        Raises:
            DiskFullError: no space was left.
        """
        path = self.path / stage.file
        self.current = stage.name
        if is_finished(self.path, stage, key):
            noun = stage.read(path) if stage.read else load(stage.noun, path)
            _log.info("%s: done before", stage.name)
        else:
            _log.info("%s: starting", stage.name)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            collect()  # a stage needs the memory of what the one before is done with
            started = time.monotonic()
            with naming_a_full_disk(path):
                noun = make()
                if stage.write:
                    stage.write(noun, path, key)
                else:
                    save(noun, path, made_from=key)
            self._note_time(stage.name, time.monotonic() - started)
        self.nouns[stage.name] = noun
        return noun

    def _note_time(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 3)
        write_atomically(self.path / TIMES_FILE, json.dumps(self.seconds, indent=1) + "\n")
        _log.info("%s: done in %.1f s", stage, seconds)


def is_finished(directory: Path, stage: Stage[Any], key: str | None = None) -> bool:
    """Return whether `stage` was finished, from `key` if one is given."""
    found = made_from(directory / stage.file)
    complete = all((directory / name).exists() for name in stage.outputs)
    return found is not None and complete and key in (None, found)


@contextmanager
def open_run(path: Path, recipe: Trial, *, fresh: bool = False) -> Iterator[RunDirectory]:
    """Create or continue the run directory at `path`, locked until the end.

    Raises:
        RunDirectoryError: another run works in it, or it holds something else.
    """
    _refuse_other_folders(path)
    created = not path.exists()
    with naming_a_full_disk(path):
        path.mkdir(parents=True, exist_ok=True)
        with (path / _LOCK_FILE).open("a+", encoding="utf-8") as lock:
            _take(lock.fileno(), path)
            if fresh and not created:
                _empty(path)
            write_atomically(path / RECIPE_FILE, yaml.safe_dump(to_json(recipe), sort_keys=False))
            yield RunDirectory(path, seconds=read_times(path))


def read_times(path: Path) -> dict[str, float]:
    """Return the seconds of each stage that has run in the directory at `path`."""
    try:
        times = json.loads((path / TIMES_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(k): float(v) for k, v in times.items()}


def read_recipe(path: Path) -> Recipe | Trial:
    """Return the recipe of the run in the directory at `path`.

    Raises:
        RunDirectoryError: there is no run.
    """
    try:
        values = yaml.safe_load((path / RECIPE_FILE).read_text(encoding="utf-8"))
        is_gate = isinstance(values, dict) and values.get("checkpoint") is not None
        return TypeAdapter(Trial if is_gate else Recipe).validate_python(values)
    except (OSError, ValueError, yaml.YAMLError) as error:
        message = f"'{path}' is no run directory ({RECIPE_FILE} cannot be read). Check the path."
        raise RunDirectoryError(message) from error


def _refuse_other_folders(path: Path) -> None:
    if path.is_file():
        message = f"'{path}' is a file. Give --run-dir a folder that is empty or holds a run."
        raise RunDirectoryError(message)
    if path.is_dir() and any(path.iterdir()) and not (path / _LOCK_FILE).exists():
        message = f"'{path}' holds files but no run. Give --run-dir an empty folder or a run's."
        raise RunDirectoryError(message)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        message = (
            f"run directory '{path}' is in use by process {owner}. "
            "Wait for it, or give another --run-dir."
        )
        raise RunDirectoryError(message) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def process_in(path: Path) -> int | None:
    """Return the process that works in the run directory at `path` now, if any."""
    try:
        with (path / _LOCK_FILE).open("r", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = lock.read().strip()
                return int(owner) if owner.isdigit() else None
    except OSError:
        return None
    return None


def _empty(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name == _LOCK_FILE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def naming_a_full_disk(path: Path) -> Iterator[None]:
    """Turn the operating system's error for a full disk into one clear line.

    Raises:
        DiskFullError: no space was left, or the quota was used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"no space is left on the disk of '{path}' ({error.strerror}). "
            "Free some space and type the command again: finished stages are kept."
        )
        raise DiskFullError(message) from error
