"""Open what must be a regular file, and read it within a bound.

A FIFO or a terminal that lies where a file is expected would keep the reader waiting for ever, a
device would never end. So what a path names is looked at before and after it is opened.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from harness.errors import UnreadableError
from harness.reading import bounds

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MARKS = (
    (b"\xef\xbb\xbf", "begins with a byte order mark, which other loaders refuse"),
    (b"\xff\xfe", "is in UTF-16 or UTF-32, not in UTF-8"),
    (b"\xfe\xff", "is in UTF-16, not in UTF-8"),
    (b"\x00\x00\xfe\xff", "is in UTF-32, not in UTF-8"),
)


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading bytes; errors of what is then done with it stay as they are.

    Raises:
        UnreadableError: there is none, it is something else, or it cannot be opened.
    """
    with readable(path):
        file = os.fdopen(_handle_of(path), "rb")
    with file:
        yield file


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of a file which it is that the operating system does not let be read.

    Raises:
        UnreadableError: for an OSError.
    """
    try:
        yield
    except OSError as error:
        why = f"cannot be read: {error.strerror or error}"
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            why = f"is a link to {path.readlink()}, which is not there: copy the files with `cp -L`"
        raise UnreadableError(path, why) from error


def _handle_of(path: Path) -> int:
    try:
        _refuse_special(path, path.stat().st_mode)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the path
        raise UnreadableError(path, f"cannot be opened: {error}") from error
    try:
        _refuse_special(path, os.fstat(handle).st_mode)  # os.fdopen keeps no folder
    except UnreadableError:
        os.close(handle)
        raise
    return handle


def read_bytes(path: Path, *, most: int = bounds.CONFIG_BYTES) -> bytes:
    """Return the contents of a regular file of at most `most` bytes.

    Raises:
        UnreadableError: it is none, or it is larger.
    """
    with readable(path), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if size > most or len(content) > most:
        found = max(size, len(content))
        raise UnreadableError(path, f"has {found} bytes, more than the {most} of any such")
    if content.startswith(_LFS_POINTER):
        raise UnreadableError(path, "is a Git LFS pointer, not the file: run `git lfs pull` there")
    return content


def read_utf8(path: Path, *, most: int = bounds.TEXT_BYTES) -> str:
    """Return the text of a regular file of at most `most` bytes, in UTF-8.

    Raises:
        UnreadableError: it is none, larger, or in another encoding.
    """
    return as_utf8(read_bytes(path, most=most), f"'{path}'")


def as_utf8(content: bytes, where: str) -> str:
    """Return bytes as the text that they are in UTF-8, without a byte order mark.

    Raises:
        UnreadableError: they are no such text.
    """
    for mark, why in _MARKS:
        if content.startswith(mark):
            raise UnreadableError(where, why)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableError(where, f"is no UTF-8 text: {_place(error)}") from error


def _place(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at position {error.start}"


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise UnreadableError(path, f"is {kind}, where a file must be")
