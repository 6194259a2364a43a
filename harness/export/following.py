"""Who looks at a checkpoint while it is written."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


class Follower(Protocol):
    """Looks at files of weights while others are still written."""

    def begin(self, folders: tuple[Path, ...], num_bytes: int) -> None:
        """Begin: all files have their headers, and the configuration is there.

        Args:
            folders: where they lie, and where they will.
            num_bytes: of all tensors.
        """

    def add(self, names: Iterable[str]) -> None:
        """Take note that files are full, and were read back."""
