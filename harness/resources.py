"""Objects that own files, threads or folders, and close all of them together."""

from contextlib import ExitStack
from types import TracebackType
from typing import Self


class ResourceOwner:
    """Context manager that closes, in reverse order, all that was put on `self._exits`."""

    def __init__(self) -> None:
        """Own nothing yet."""
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        """Open what is needed; if a part of it cannot be opened, the rest is closed again."""
        with self._exits as exits:
            self._open()
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def _open(self) -> None:
        """Open what is needed from the beginning."""
