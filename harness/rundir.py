"""The run directory: one writer at a time; a stage is reused if nothing that it used has changed.

A stage's result (its noun) is one JSON file, together with the digests of everything it was made
from. Typing a command again therefore runs only the stages of which an input has changed or whose
file is missing. A file is complete or absent (harness.artifacts.store), so a run that was killed at
any moment can be continued.

File names and dates decide nothing. chain.json holds the digest of each result as this run wrote
it. A result that was edited since ends the run; one that chain.json does not know, or whose own
files have changed, is made again.
"""

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter

from harness import doors, refusals
from harness.artifacts import (
    START_AGAIN,
    DeploymentsTrial,
    MadeFrom,
    Recipe,
    Trial,
    digest_of,
    load,
    made_from,
    record_digest,
    save,
    to_json,
    write_atomically,
)
from harness.errors import ReasonCode, RunDirectoryError, UnreadableError, UsageError
from harness.garbage import collect
from harness.reading import read_json_object, read_yaml_mapping

T = TypeVar("T")
RECIPE_FILE = "recipe.yaml"
TIMES_FILE = "stage_seconds.json"
CHAIN_FILE = "chain.json"
LOCK_FILE = "run.lock"
WRITTEN = (
    RECIPE_FILE,
    TIMES_FILE,
    CHAIN_FILE,
    *"""
    plan.json calibration.json calibration.safetensors checkpoint checkpoint.json checkpoint.old
    checkpoint.partial integrity.json deployment.json smoke.json smoke_declared.json declared
    server.log load_report.rank*.json container scorecard.json samples tasks baseline
    verdict.json failure.json environment.json report.html report.md junit.xml localization.json
    localization .*.partial
    """.split(),  # noqa: SIM905 -- a name a line would be a screen
)
"""All that harness writes into a run directory, as patterns: what --fresh removes."""
_log = logging.getLogger("harness.run")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage(Generic[T]):
    """What a stage is called, where its noun lies, and how it is read and written."""

    name: str
    file: str
    noun: type[T]
    outputs: tuple[str, ...] = ()
    """What else must be there for the stage to count as finished."""
    changed: Callable[[T, Path], str | None] | None = None
    """Says which files are not those that the noun speaks of, given the run directory."""
    read: Callable[[Path], T] | None = None
    """Other than load()."""
    write: Callable[[T, Path, MadeFrom], str] | None = None
    """Other than save(); gets the noun, the path and what it was made from."""

    def load(self, directory: Path) -> T:
        """Read the noun from a run directory.

        Raises:
            RunDirectoryError: it is not there, damaged, or was changed.
        """
        path = directory / self.file
        return self.read(path) if self.read else load(self.noun, path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """The digest of each stage's noun, as the run wrote it."""

    digests: Mapping[str, str]
    """By stage."""


@dataclass(slots=True)
class RunDirectory:
    """An open, locked run directory."""

    path: Path
    nouns: dict[str, Any] = field(default_factory=dict)
    """What the stages have made or found so far, by stage."""
    digests: dict[str, str] = field(default_factory=dict)
    """Of these nouns, as their files hold them."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time of each stage, the last time that it ran."""
    current: str = "start"
    """The stage that is running."""

    def stage(self, stage: Stage[T], *, made_from: MadeFrom, make: Callable[[], T]) -> T:
        """Return the stage's noun: from the directory if it was made from the same, else `make`'s.

        Raises:
            DiskFullError: no space was left.
            RunDirectoryError: the noun in the directory was changed after it was written.
            SystemRefusedError: the operating system refused something else.
        """
        path = self.path / stage.file
        self.current = stage.name
        noun = find_noun(self.path, stage, made_from)
        if noun is not None:
            _log.info("%s: done before", stage.name)
            self.nouns[stage.name] = noun
            self.digests[stage.name] = known_digests(self.path)[stage.name]
        else:
            _log.info("%s: starting", stage.name)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            collect()  # a stage needs the memory of what the one before is done with
            started = time.monotonic()
            with naming_refusals():
                noun = make()
                self.keep(stage, noun, made_from)
            self._note_time(stage.name, time.monotonic() - started)
        return noun

    def holds(self, stage: Stage[T], *, made_from: MadeFrom) -> bool:
        """Return whether a stage was done here from these, and has all of its files.

        Raises:
            RunDirectoryError: what lies there is not what the stage has written.
        """
        return find_noun(self.path, stage, made_from) is not None

    def kept_digest(self, stage: Stage[T]) -> str:
        """Return the digest of what a stage left here; empty where it left nothing."""
        return known_digests(self.path).get(stage.name, "")

    def forget(self, stage: Stage[T]) -> None:
        """Let a stage be done again, whatever it left."""
        (self.path / stage.file).unlink(missing_ok=True)

    def keep(self, stage: Stage[T], noun: T, made_from: MadeFrom) -> None:
        """Write the noun of a stage.

        chain.json says nothing of it meanwhile: a run that was killed between a new noun and its
        digest would keep one that contradicts the old digest, and looks changed for good.
        """
        path = self.path / stage.file
        known = dict(known_digests(self.path))
        if known.pop(stage.name, None) is not None:
            save(Chain(digests=known), self.path / CHAIN_FILE)
        if stage.write:
            digest = stage.write(noun, path, made_from)
        else:
            digest = save(noun, path, made_from=made_from)
        self.nouns[stage.name], self.digests[stage.name] = noun, digest
        save(Chain(digests={**known, stage.name: digest}), self.path / CHAIN_FILE)

    def _note_time(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(seconds, 3)
        write_atomically(self.path / TIMES_FILE, json.dumps(self.seconds, indent=1) + "\n")
        _log.info("%s: done in %.1f s", stage, seconds)


def find_noun(directory: Path, stage: Stage[T], ingredients: MadeFrom | None = None) -> T | None:
    """Return what `stage` has made, from these `ingredients` if they are given; None if nothing.

    Raises:
        RunDirectoryError: what lies there is not what the stage has written.
    """
    path = directory / stage.file
    found = made_from(path)
    known = known_digests(directory).get(stage.name)
    is_complete = all((directory / name).exists() for name in stage.outputs)
    if found is None or known is None or not is_complete:
        return None
    if ingredients is not None and found != ingredients:
        return None
    if record_digest(path) != known:
        message = (
            f"'{path}' is not the one that this run wrote: its digest is "
            f"{record_digest(path) or 'none':.12}, and {CHAIN_FILE} says {known:.12}. Put the file "
            f"back as it was, or {START_AGAIN}."
        )
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    noun = stage.load(directory)
    why = stage.changed(noun, directory) if stage.changed else None
    if why is not None:
        _log.info("%s: has to be done again, %s", stage.name, why)
        return None
    return noun


def known_digests(directory: Path) -> Mapping[str, str]:
    """Return the digest of each stage's noun as the run in `directory` wrote it.

    Raises:
        RunDirectoryError: chain.json was changed.
    """
    path = directory / CHAIN_FILE
    return load(Chain, path).digests if record_digest(path) is not None else {}


@contextmanager
def open_run(path: Path, recipe: Trial, *, fresh: bool = False) -> Iterator[RunDirectory]:
    """Create or continue the run directory at `path`, locked until the end.

    Raises:
        RunDirectoryError: another run works in it, or it holds something else.
    """
    lock = _open_lock(path)
    try:
        _take(lock, path)
        with naming_refusals():
            if fresh:
                _empty(path)
            values = {"digest": digest_of(recipe), **_mapping(to_json(recipe))}
            write_atomically(path / RECIPE_FILE, yaml.safe_dump(values, sort_keys=False))
            yield RunDirectory(path, seconds=read_times(path))
    finally:
        os.close(lock)


def _open_lock(path: Path) -> int:
    """Make the run directory where it is not there, and return its lock's descriptor."""
    doors.check_folder(path)
    _refuse_other_folders(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        return doors.open_regular(path / LOCK_FILE, create=True)
    except OSError as error:
        raise refusals.given(error) from error


def read_times(path: Path) -> dict[str, float]:
    """Return the seconds of each stage that has run in the directory at `path`."""
    try:
        times = read_json_object(path / TIMES_FILE)
    except UnreadableError:
        return {}
    return {name: float(s) for name, s in times.items() if isinstance(s, int | float)}


def read_recipe(path: Path, *, older: bool = False) -> Recipe | Trial:
    """Return the recipe of the run in the directory at `path`.

    Args:
        path: of the run.
        older: whether another version of harness may have written it; what that did not know then
            stands at today's defaults.

    Raises:
        RunDirectoryError: there is no run.
    """
    try:
        values = read_yaml_mapping(path / RECIPE_FILE)
        digest = values.pop("digest", None)
        written = digest_of(values) if older else None
        recipe: Recipe | Trial = TypeAdapter(_kind_of(values)).validate_python(values)
        found = digest_of(recipe)
    except (UnreadableError, ValueError) as error:  # such as a text that means infinity
        message = f"'{path}' is no run directory ({RECIPE_FILE} cannot be read). Check the path."
        raise RunDirectoryError(message) from error
    if digest not in (found, written) or digest is None:
        message = f"'{path / RECIPE_FILE}' was changed after harness wrote it. Run it again."
        raise RunDirectoryError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    return recipe


def _kind_of(values: Mapping[str, object]) -> type[Trial]:
    """Return which of the nouns a run's recipe is."""
    if "candidate_at" in values:
        return DeploymentsTrial
    return Recipe if values.get("checkpoint") is None else Trial


def _mapping(values: object) -> dict[str, object]:
    if not isinstance(values, dict):
        raise TypeError(type(values))
    return values


def _refuse_other_folders(path: Path) -> None:
    """Refuse a folder with files that are no run's: a lock by itself may be anybody's."""
    others = {entry.name for entry in path.iterdir()} - {LOCK_FILE} if path.is_dir() else set()
    if others and not {LOCK_FILE, RECIPE_FILE} <= {entry.name for entry in path.iterdir()}:
        message = f"'{path}' holds files but no run. Name an empty folder, or one of a run."
        raise RunDirectoryError(message)


def _take(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        message = (
            f"run directory '{path}' is in use by process {owner}. "
            "Wait for it, or name another folder."
        )
        raise RunDirectoryError(message) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def process_in(path: Path) -> int | None:
    """Return the process that works in the run directory at `path` now, if any."""
    try:
        lock = doors.open_regular(path / LOCK_FILE)
    except (OSError, UsageError):
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 32, 0).strip()
        return int(owner) if owner.isdigit() else None
    finally:
        os.close(lock)
    return None


def _empty(path: Path) -> None:
    """Remove what harness wrote; what somebody else put there stays."""
    for entry in path.iterdir():
        if any(fnmatchcase(entry.name, pattern) for pattern in WRITTEN):
            doors.remove(entry)


@contextmanager
def naming_refusals() -> Iterator[None]:
    """Turn what the operating system refuses to a stage into one clear line.

    Raises:
        DiskFullError: no space was left, or the quota was used up.
        StageError: the system refused something else, or no memory was left.
    """
    try:
        yield
    except OSError as error:
        raise refusals.running(error) from error
    except MemoryError as error:
        raise refusals.out_of_memory(error) from error
