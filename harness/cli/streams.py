"""Standard output and standard error that survive a closed pipe, a full disk or an odd terminal.

If the reader has gone (`| head -1`), the command goes on and ends as it would have. What a terminal
cannot show is printed as an escape. A file that cannot be written is reported once, by the command,
and not again by the interpreter at exit.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TextIO

_refused: list[OSError] = []
"""Why standard output cannot be written, other than for want of a reader."""


class _Patient(io.FileIO):
    """A file that takes all that is written; what the system refuses is noted and forgotten."""

    def write(self, content: object, /) -> int:
        view = memoryview(content)  # type: ignore[arg-type]  # a buffer, as the base class says
        try:
            return super().write(view) or view.nbytes
        except BrokenPipeError:
            return view.nbytes
        except OSError as error:
            if self.fileno() == 1:
                _refused.append(error)
            return view.nbytes


def make_patient() -> None:
    """Replace both standard streams by patient ones; one that is closed becomes /dev/null."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # The next file that is opened would take its number, and get what is printed.
            _open_nothing(descriptor)
        setattr(sys, name, _patient(descriptor, stream))


def raise_refused() -> None:
    """Write out what was printed.

    Raises:
        OSError: standard output cannot be written.
    """
    with suppress(ValueError):  # closed
        sys.stdout.flush()
    if _refused:
        error = _refused.pop()
        error.filename = "standard output"
        raise error


def _patient(descriptor: int, stream: TextIO | None) -> TextIO:
    raw = _Patient(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),  # noqa: PLR2004 - standard error
        write_through=descriptor == 2,  # noqa: PLR2004
    )


def _open_nothing(descriptor: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor:
        os.dup2(nothing, descriptor)
        os.close(nothing)
