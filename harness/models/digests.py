"""sha256 of a checkpoint's files: its identity.

A baseline is found again, a stage is skipped and a verdict is given by this digest, so it covers
contents, not names of folders or dates: every file that lies there, but for pickled weights, which
nothing here reads, and hidden ones.

Hashing 70 GB takes a minute, so each file's hash is remembered in the user's cache folder, under
the file's device, inode, size, time of modification and time of change (ctime). The last is set by
the kernel with every write, rename and change of times, and nobody can set it back, so a file that
was rewritten in place or exchanged is hashed again even where its size and dates are those of the
one before. A file that changed within the last two seconds is not remembered: on a disk with coarse
times another change could leave the same ones. `HARNESS_PARANOID=1` (--paranoid) believes nothing
that another process remembered.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from harness.artifacts import digest_of, write_atomically
from harness.cores import num_cores
from harness.doors import user_cache
from harness.errors import EvidenceError, ModelError, PrerequisiteError, ReasonCode, UsageError
from harness.models.sidecars import files_of
from harness.models.weight_files import SETTLED_NS

PARANOID = "HARNESS_PARANOID"
_NUM_THREADS = min(16, num_cores())
_MAX_ENTRY_BYTES = 256
_PRIVATE = 0o700
_OTHERS_MAY_WRITE = 0o022
_log = logging.getLogger("harness.models")


class FileState(NamedTuple):
    """What tells that a file is still the one that was hashed."""

    device: int
    inode: int
    num_bytes: int
    modified_ns: int
    changed_ns: int


_hashed_here: dict[FileState, str] = {}
"""By this process."""


def believe_no_cache() -> None:
    """Have files hashed again, by this process and by those that it starts."""
    os.environ[PARANOID] = "1"


def digest_folder(folder: Path) -> str:
    """Return the sha256 over the names and contents of a checkpoint's files, as hexadecimal.

    Raises:
        ModelError: a file cannot be read, or was changed while it was read.
    """
    return digest_files(files_of(folder))


@contextmanager
def unchanged(folder: Path, digest: str, *, meanwhile: str) -> Iterator[None]:
    """Make sure that a folder holds what `digest` says before, during and after the context.

    Files that were exchanged and put back have the same contents and other times of change.

    Args:
        folder: of a checkpoint or model.
        digest: as `digest_folder` gave it.
        meanwhile: what is done with it, such as `loaded`.

    Raises:
        EvidenceError: it held something else, with both digests.
    """
    before = states_of(folder) if folder.exists() else None  # whoever reads it says that
    _refuse_changed(folder, digest, f"before it was {meanwhile}")
    yield
    if before is not None and states_of(folder) != before:
        _refuse_changed(folder, digest, f"while it was {meanwhile}")
        message = (
            f"files of '{folder}' were touched, or exchanged and put back, while it was "
            f"{meanwhile}. Let nobody write there, and type the command again."
        )
        raise EvidenceError(message)


def states_of(folder: Path) -> list[FileState]:
    """Return what every exchange of the folder, of a file in it or of a link to one changes.

    Raises:
        EvidenceError: there is no such folder any more.
    """
    try:
        places = [folder, *files_of(folder).values()]
        return [state_of(look) for place in places for look in (place.lstat(), place.stat())]
    except OSError as error:
        message = f"'{folder}' is gone while it is looked at ({error.strerror}). Put it back."
        raise EvidenceError(message) from error


def _refuse_changed(folder: Path, digest: str, when: str) -> None:
    found = digest_folder(folder)
    if found != digest:
        message = (
            f"'{folder}' was changed or exchanged {when}: its digest is {found:.12} and was "
            f"{digest:.12}. Let nobody write there, and type the command again."
        )
        raise EvidenceError(message)


def digest_files(files: Mapping[str, Path]) -> str:
    """Return the sha256 over names and contents of files, as hexadecimal.

    Raises:
        ModelError: a file cannot be read, or was changed while it was read.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        hashes = list(pool.map(sha256_of, files.values()))
    return digest_of(dict(zip(files, hashes, strict=True)))


def sha256_of(file: Path) -> str:
    """Return the sha256 of `file`, which is read if nobody has before.

    Raises:
        ModelError: it cannot be read, or was changed while it was read.
    """
    try:
        with file.open("rb") as content:
            state, started = state_of(os.fstat(content.fileno())), time.time_ns()
            known = _recall(state)
            if known is not None:
                return known
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            same = state == state_of(os.fstat(content.fileno())) == state_of(file.stat())
    except OSError as error:
        message = f"'{file}' cannot be read ({error.strerror}). Check the file and its folder."
        raise ModelError(message) from error
    if not same:
        message = f"'{file}' was changed while it was read. Wait until it is complete."
        raise ModelError(message, reason=ReasonCode.EVIDENCE_CHANGED)
    _remember(state, sha256, started)
    return sha256


def remember_written(files: Mapping[Path, str]) -> None:
    """Remember hashes that were made while the files were written, and are theirs still."""
    for file, sha256 in files.items():
        _remember(state_of(file.stat()), sha256, time.time_ns())


def state_of(stat: os.stat_result) -> FileState:
    """Return what tells, later, that a file is still this one."""
    return FileState(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _recall(state: FileState) -> str | None:
    if state in _hashed_here:
        return _hashed_here[state]
    if os.environ.get(PARANOID):
        return None
    folder = _cache_folder()
    if folder is None:
        return None
    try:
        with (folder / digest_of(*state)).open(encoding="utf-8") as file:
            owner = os.fstat(file.fileno())
            known = json.loads(file.read(_MAX_ENTRY_BYTES))
    except (OSError, ValueError):
        return None
    # What others may write is no memory of ours.
    ours = owner.st_uid == os.geteuid() and not owner.st_mode & _OTHERS_MAY_WRITE
    return known if ours and isinstance(known, str) else None


def _remember(state: FileState, sha256: str, looked_ns: int) -> None:
    """Remember a hash, unless the file might change once more and look the same."""
    if state.changed_ns > looked_ns - SETTLED_NS:
        return
    _hashed_here[state] = sha256
    folder = _cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        write_atomically(folder / digest_of(*state), json.dumps(sha256))
    except (OSError, UsageError) as error:
        _log.info("models: digests cannot be remembered in '%s': %s", folder, error)


def _cache_folder() -> Path | None:
    """Return where digests are remembered; None for a user without a home."""
    try:
        return user_cache() / "harness" / "digests"
    except PrerequisiteError:
        return None
