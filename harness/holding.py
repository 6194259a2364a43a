"""Things that hold others open (files, threads, folders) and let go of all of them together."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self


class Holding:
    """Context manager that lets go, in reverse order, of all that was put on `self._exits`."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        """Take hold; what was taken is let go of if the rest cannot be."""
        with self._exits as exits:
            self._take_hold()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def _take_hold(self) -> None:
        """Take what is needed from the beginning."""
