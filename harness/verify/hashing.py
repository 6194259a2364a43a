"""sha256 of a file while it is read, in a thread of its own.

Either of the file as it is, or of its tensors as harness's export meant them: the sha256 of the
sha256 of everything before the first tensor and of those of all tensors, in the order of the file.
An export knows the latter before anything is written.

Hashing takes longer than reading from a warm cache (1.9 against 11 GB/s on the machine of the
first measurements), and hashlib lets other threads run meanwhile. Pieces are collected into
blocks, because a hand-over costs more than hashing a small piece; at most three blocks wait, so
memory stays bounded.
"""

import hashlib
from enum import Enum
from pathlib import Path
from queue import Queue
from threading import Thread

from harness.holding import Holding


class Hashed(Enum):
    """What of a file is hashed."""

    NOTHING = "nothing"
    FILE = "file"
    TENSORS = "tensors"


_BLOCK_BYTES = 1 << 23
_MAX_WAITING = 3


class Hasher(Holding):
    """Context manager; the digest is there when it is left. Off, it does nothing."""

    def __init__(self, of: Hashed) -> None:
        super().__init__()
        self._is_on, self._is_cut = of is not Hashed.NOTHING, of is Hashed.TENSORS
        self._digest = hashlib.sha256()
        self._whole = hashlib.sha256()
        self._block, self._cuts = bytearray(), list[int]()
        self._waiting: Queue[tuple[bytearray, list[int]] | None] = Queue(_MAX_WAITING)
        self._thread = Thread(target=self._work, daemon=True)

    def _take_hold(self) -> None:
        if self._is_on:
            self._thread.start()
            self._exits.callback(self._end)

    def _end(self) -> None:
        self._hand_over()
        self._waiting.put(None)
        self._thread.join()

    def update(self, piece: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; they may be overwritten after the call."""
        if not self._is_on:
            return
        self._block += piece
        if len(self._block) >= _BLOCK_BYTES:
            self._hand_over()

    def cut(self) -> None:
        """Say that a tensor ends here."""
        if self._is_cut:
            self._cuts.append(len(self._block))

    def hexdigest(self) -> str | None:
        """Return the sha256 of everything, after the context is left; None where it was off."""
        if not self._is_on:
            return None
        return (self._whole if self._is_cut else self._digest).hexdigest()

    def _hand_over(self) -> None:
        self._waiting.put((self._block, self._cuts))
        self._block, self._cuts = bytearray(), []

    def _work(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            block, cuts = waiting
            view, begin = memoryview(block), 0
            for end in cuts:
                self._digest.update(view[begin:end])
                self._whole.update(self._digest.digest())
                self._digest, begin = hashlib.sha256(), end
            self._digest.update(view[begin:])


def hash_file(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
