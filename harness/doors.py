"""Every file and folder is written through here.

Only a regular file is written, or a new one: no link is followed, no device or pipe opened, no
folder replaced. A file is written beside its final name, flushed to the disk, then renamed, so it
is there whole or not at all. Paths that a user gave are checked before anything runs.
"""

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from harness import refusals
from harness.errors import PrerequisiteError, RunDirectoryError, UsageError

_KINDS = {
    stat.S_IFLNK: "a link, and no link is written through",
    stat.S_IFDIR: "a folder where a file belongs",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
_LONGEST_NAME = 240
"""Bytes; file systems take 255, of which the temporary name needs a few."""
GIB = 1 << 30


def check_file(path: Path) -> None:
    """Refuse a path to which no file can be written.

    Raises:
        UsageError: it is no regular file, or its folder is none that can be written to.
    """
    with _as_given(path):
        _refuse_other_kinds(path)
        folder = path.parent
        if not folder.exists():
            message = (
                f"{_named(path)} cannot be written: its folder is not there. Make it, or name "
                "another file."
            )
            raise UsageError(message)
        _check_may_write(folder)


def check_folder(path: Path, *, num_bytes: int = 0) -> None:
    """Refuse a path at which nothing can be written into a folder, which need not be there yet.

    Args:
        path: of the folder; those above it are made with it.
        num_bytes: space that it needs.

    Raises:
        UsageError: it is no folder, or cannot be written to or made.
        PrerequisiteError: its disk has too little space.
    """
    with _as_given(path):
        if path.is_symlink() and not path.exists():
            message = f"{_named(path)} is a link that leads nowhere. Remove it, or name a folder."
            raise RunDirectoryError(message)
        there = path.absolute()
        while not there.exists():
            there = there.parent
        _check_may_write(there)
        free = shutil.disk_usage(there).free
    if num_bytes > free:
        message = (
            f"{num_bytes / GIB:.2f} GiB are to be written to {_named(path)}, and the disk of "
            f"{_named(there)} has {free / GIB:.2f} GiB free. Free some space, or name a folder on "
            "another disk."
        )
        raise PrerequisiteError(message)


def check_apart(written: Path, read: Iterable[Path]) -> None:
    """Refuse to write into a folder that is read, or into one that holds it.

    Raises:
        RunDirectoryError: with both.
    """
    ours = written.resolve()
    for folder in read:
        theirs = folder.resolve()
        if ours.is_relative_to(theirs):
            how = "is" if ours == theirs else "lies within"
        elif theirs.is_relative_to(ours):
            how = "holds"
        else:
            continue
        message = (
            f"{_named(written)} {how} {_named(folder)}, which is read and stays as it is. Choose a "
            "folder apart from it."
        )
        raise RunDirectoryError(message)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` so that `path` is either the old file or the whole new one.

    Raises:
        UsageError: it is no regular file.
        OSError: the system refused; nothing is left of it.
    """
    with written(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which becomes `path` where the context ends without an error.

    Raises:
        UsageError: it is no regular file.
        OSError: the system refused; nothing is left of it.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    partial = partial_of(path)
    try:
        _refuse_other_kinds(path)
        partial.unlink(missing_ok=True)  # of a process that was killed; a link, not its target
        with os.fdopen(os.open(partial, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.filename in (None, str(partial)):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def partial_of(path: Path) -> Path:
    """Return the file that becomes `path`."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return path.with_name(f".{name}.partial")


def open_regular(path: Path, *, create: bool = False) -> int:
    """Open a regular file to read and write, such as one that is locked; return its descriptor.

    Raises:
        UsageError: it is no regular file.
        OSError: the system refused.
    """
    access = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    refused = UsageError(f"{_named(path)} is no regular file. Remove it, or name another folder.")
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise refused from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused
    return descriptor


def remove(path: Path) -> None:
    """Remove a file, a link (not what it leads to) or a folder with all that it holds, if any.

    Raises:
        OSError: the system refused.
    """
    if _kind(path) == stat.S_IFDIR:
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_anew(folder: Path) -> None:
    """Make an empty folder in the place of whatever is there.

    Raises:
        OSError: the system refused.
    """
    remove(folder)
    folder.mkdir()


def expanded(named: str | Path) -> Path:
    """Return the path that was given, `~` replaced by the user's home.

    Raises:
        UsageError: the user has no home.
    """
    path = Path(named)
    try:
        return path.expanduser()
    except RuntimeError as error:
        message = f"{_named(path)}: no such user has a home folder. Write the path in full."
        raise UsageError(message) from error


def user_cache() -> Path:
    """Return the folder in which this user's programs keep what they can make again.

    Raises:
        PrerequisiteError: the user has no home.
    """
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        message = "this user has no home folder. Set HOME, or XDG_CACHE_HOME, to one that is there."
        raise PrerequisiteError(message) from error


def _kind(path: Path) -> int | None:
    """Return what is at `path`, without following it; None for nothing."""
    try:
        return stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return None


def _refuse_other_kinds(path: Path) -> None:
    found = _kind(path)
    if found not in (None, stat.S_IFREG):
        what = _KINDS.get(found, "no regular file")
        message = f"{_named(path)} is {what}. Name a file that is new, or a regular one."
        raise UsageError(message)


def _check_may_write(folder: Path) -> None:
    if not folder.is_dir():
        message = f"{_named(folder)} is no folder. Name another path."
        raise UsageError(message)
    # Asks the file system, not the rights alone: it may be mounted to be read only.
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"the folder {_named(folder)} cannot be written to. Name another path."
        raise UsageError(message)


@contextmanager
def _as_given(path: Path) -> Iterator[None]:
    """Turn what the system says of a path that was given into the line that says so."""
    try:
        os.fsencode(path).decode()
        if "\0" in str(path):
            message = f"{_named(path)} is no path: it holds a NUL. Name another."
            raise UsageError(message)
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise refusals.given(error) from error
    except UnicodeError as error:
        raise refusals.not_utf8(error) from error


def _named(path: Path) -> str:
    return f"'{refusals.visible(str(path))}'"
