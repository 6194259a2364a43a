"""End the process as soon as all is done, without taking the interpreter apart.

That frees nothing that the system would not free, and takes a process that has torch a second or
more, an eighth of a short command. What was registered with `atexit` is done before, and threads
are waited for, as ever.
"""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """End at once with the exit code that is raised in here; an error ends as Python has it.

    `atexit` begins with what was registered last, so this has to come first. Where something has
    come before, such as what measures the coverage of tests, all ends as ever.
    """
    if atexit._ncallbacks():  # noqa: SLF001  # no public one
        yield
        return
    codes: list[int] = []
    atexit.register(_leave, codes)
    try:
        yield
    except SystemExit as end:
        if isinstance(end.code, int):
            codes.append(end.code)
        raise


def _leave(codes: list[int]) -> None:
    with suppress(OSError, ValueError):  # closed, or nobody reads: Python knows what to say
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        for code in codes:
            os._exit(code)
