"""What the operating system refuses, in one line: which path, what is wrong with it, what to do.

The one place where an OSError becomes an ending. A room that knows more says it before.
"""

import errno
from collections.abc import Mapping
from typing import NamedTuple

from harness.errors import (
    DiskFullError,
    HarnessError,
    ReasonCode,
    StageError,
    SystemRefusedError,
    UsageError,
)


class _Words(NamedTuple):
    what: str
    fix: str


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
SHORT = FULL | {errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
"""What the machine lacks at the moment, whatever was typed."""
_PATH = "Check the path."
_RIGHTS = "Change its rights, or name another path."
_WORDS: Mapping[int, _Words] = {
    errno.EACCES: _Words("may not be opened by this user", _RIGHTS),
    errno.EBUSY: _Words("is in use by the system", "Name another path."),
    errno.EDQUOT: _Words("cannot be written: the quota is used up", "Free some space."),
    errno.EEXIST: _Words("exists already", "Remove it, or name another path."),
    errno.EFBIG: _Words("would be larger than files may be here", "Raise 'ulimit -f'."),
    errno.EIO: _Words("cannot be read or written: the device failed", "Check the disk."),
    errno.EISDIR: _Words("is a folder where a file belongs", "Name a file."),
    errno.ELOOP: _Words("is a link that is not followed, or leads back to itself", _PATH),
    errno.EMFILE: _Words(
        "cannot be opened: too many files are open", "Raise the limit ('ulimit -n')."
    ),
    errno.ENAMETOOLONG: _Words("is too long for a path", "Choose a shorter name."),
    errno.ENFILE: _Words("cannot be opened: too many files are open", "End other programs."),
    errno.ENOENT: _Words("is not there", _PATH),
    errno.ENODEV: _Words("is a device of which there is none", _PATH),
    errno.ENOSPC: _Words("cannot be written: no space is left on the disk", "Free some space."),
    errno.ENOTDIR: _Words("is or lies below a file where a folder belongs", _PATH),
    errno.ENOTEMPTY: _Words("is a folder that is not empty", "Name another path."),
    errno.ENXIO: _Words("is a device or a pipe that nobody serves", "Name a file."),
    errno.EPERM: _Words("may not be changed by this user", _RIGHTS),
    errno.EROFS: _Words("lies on a file system that is read only", "Name another path."),
    errno.ESPIPE: _Words("is a pipe where a file belongs", "Name a file."),
    errno.ETXTBSY: _Words("is a program that runs", "Name another path."),
}
_LONGEST = 300


def line_of(error: OSError) -> str:
    """Return what was refused and what to do about it, as one line."""
    path = _path_of(error)
    words = _WORDS.get(error.errno or 0)
    if words is None:
        said = (error.strerror or str(error)).strip() or type(error).__name__
        where = f" '{path}'" if path else ""
        return f"the operating system refused{where}: {visible(said)}. {_PATH}"
    return f"{repr_of(path)} {words.what}. {words.fix}"


def repr_of(path: str) -> str:
    """Return a path in quotes; `a file` where it is not known."""
    return f"'{path}'" if path else "a file"


def visible(text: str) -> str:
    """Return `text` on one line that any terminal can print, cut where it is very long."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def given(error: OSError) -> HarnessError:
    """Return the ending where something that was given is refused: 2, or 3 if the machine is short.

    Nothing ran yet.
    """
    if error.errno in SHORT:
        return running(error)
    return UsageError(line_of(error))


def running(error: OSError) -> StageError:
    """Return the ending where a stage is refused something."""
    advice = "Then type the same command again: finished stages are kept."
    kind = DiskFullError if error.errno in FULL else SystemRefusedError
    return kind(f"{line_of(error)} {advice}")


def out_of_memory(error: MemoryError) -> StageError:
    """Return the ending where the host had no memory left."""
    said = visible(str(error))
    message = f"no memory was left{f' ({said})' if said else ''}. Use a machine with more."
    return StageError(message, reason=ReasonCode.OUT_OF_MEMORY)


def not_utf8(error: UnicodeError) -> UsageError:
    """Return the ending where a name or a text is not UTF-8."""
    text = error.object if isinstance(error, UnicodeEncodeError | UnicodeDecodeError) else ""
    shown = visible(text) if isinstance(text, str) else visible(repr(bytes(text)))
    message = f"'{shown}' is not UTF-8. Rename the file, or write the text as UTF-8."
    return UsageError(message)


def _path_of(error: OSError) -> str:
    name = error.filename2 or error.filename
    if name is None:
        return ""
    return visible(name if isinstance(name, str) else repr(name))
