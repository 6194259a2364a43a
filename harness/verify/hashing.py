"""Hash of a file while it is read.

Either sha256 of the file as it is, or XXH3 of its tensors as harness's export meant them: that of
the hashes of everything before the first tensor and of all tensors, in the order of the file. An
export knows the latter before anything is written. It can be made from parts of the file that are
read side by side, while the other needs all bytes in their order, and it is made at the speed of
memory, while sha256 takes longer than anything else that is done with most bytes (1 to 2 GB/s a
core). Both let other threads run meanwhile.
"""

import hashlib
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray


class Hashed(Enum):
    """What of a file is hashed."""

    NOTHING = "nothing"
    FILE = "file"
    TENSORS = "tensors"


class Hasher:
    """Hashes a part of a file."""

    def __init__(self, of: Hashed) -> None:
        self.is_on, self._is_cut = of is not Hashed.NOTHING, of is Hashed.TENSORS
        self._new = xxhash.xxh3_128 if self._is_cut else hashlib.sha256
        self._digest = self._new()
        self._digests: list[bytes] = []

    def update(self, piece: NDArray[np.uint8]) -> None:
        """Take the next bytes."""
        if self.is_on:
            self._digest.update(piece.data)

    def cut(self) -> None:
        """Say that a tensor, or what lies before the first, ends here."""
        if self._is_cut:
            self._take()

    def end(self) -> bytes:
        """Return the digests of the part."""
        if self.is_on and not self._is_cut:
            self._take()
        return b"".join(self._digests)

    def _take(self) -> None:
        self._digests.append(self._digest.digest())
        self._digest = self._new()


def join_digests(of: Hashed, parts: Iterable[bytes]) -> str | None:
    """Return the hash of a file, from those of its parts; None where there was to be none."""
    match of:
        case Hashed.NOTHING:
            return None
        case Hashed.FILE:
            return b"".join(parts).hex()
        case Hashed.TENSORS:
            return xxhash.xxh3_128_hexdigest(b"".join(parts))


def hash_file(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
