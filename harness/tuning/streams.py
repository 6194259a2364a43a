"""The hidden states of all variants between two layers: in memory, or in a file.

How much they take is known before anything runs. What has no room in memory goes to a file, and
that is said; what has none there either is refused.

Shapes: B texts of a batch, T tokens of a text, H hidden size.
"""

import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor

from harness.calibrate.memory import host_bytes
from harness.errors import PrerequisiteError, ReasonCode

_log = logging.getLogger("harness.tune")
_SHARE = 0.5
"""Of the free memory, which the layers' own weights and activations need too."""
_DISK_SHARE = 0.9
_GIB = 1 << 30
_FILE = "streams.partial"


class Demand(NamedTuple):
    """What streams take."""

    num_streams: int
    num_tokens: int
    width: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Return it in bytes."""
        return self.num_streams * self.num_tokens * self.width * self.dtype.itemsize

    def __str__(self) -> str:
        """Return it as it is said."""
        return (
            f"{self.num_bytes / _GIB:.2f} GiB of hidden states ({self.num_streams} streams of "
            f"{self.num_tokens} tokens)"
        )


def fits_in_memory(demand: Demand, folder: Path, most_bytes: int | None) -> bool:
    """Tell where streams go: to memory, or to a file in `folder`.

    Args:
        demand: what they take.
        folder: on whose disk they would lie; it need not be there yet.
        most_bytes: that the process may take of the host's memory.

    Raises:
        PrerequisiteError: there is no room in either.
    """
    free = psutil.virtual_memory().available
    left = free if most_bytes is None else max(0, most_bytes - host_bytes())
    room = int(_SHARE * min(free, left))
    if demand.num_bytes <= room:
        return True
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    on_disk = int(_DISK_SHARE * shutil.disk_usage(there).free)
    if demand.num_bytes <= on_disk:
        return False
    most = max(1, max(room, on_disk) * demand.num_tokens // demand.num_bytes)
    message = (
        f"tuning keeps {demand}; there is room for {room / _GIB:.2f} GiB in memory and for "
        f"{on_disk / _GIB:.2f} GiB on the disk of '{there}'. Type --tokens {most} or fewer, or "
        "name fewer --formats."
    )
    raise PrerequisiteError(message, reason=ReasonCode.OUT_OF_MEMORY)


class Streams:
    """Holds the hidden states of each stream and batch."""

    def __init__(
        self, demand: Demand, shapes: Sequence[tuple[int, ...]], file: Tensor | None
    ) -> None:
        """Hold nothing yet.

        Args:
            demand: what was foreseen.
            shapes: [B, T, H] of each batch.
            file: memory of a file; None to keep them in the process.
        """
        self._demand, self._shapes, self._file = demand, shapes, file
        self._held: dict[tuple[int, int], Tensor] = {}
        sizes = [math.prod(shape) for shape in shapes]
        self._begins = [sum(sizes[:index]) for index in range(len(sizes))]
        self._stream = sum(sizes)

    def get(self, stream: int, batch: int) -> Tensor:
        """Return what a stream holds of a batch."""
        return self._held[stream, batch]

    def put(self, stream: int, batch: int, hidden_BTH: Tensor) -> None:
        """Keep what a layer returned, in the place of what it was given."""
        if self._file is None:
            self._held[stream, batch] = hidden_BTH.cpu()
            return
        begin = stream * self._stream + self._begins[batch]
        place = self._file[begin : begin + hidden_BTH.numel()].view(hidden_BTH.shape)
        self._held[stream, batch] = place.copy_(hidden_BTH)


@contextmanager
def streams_for(
    demand: Demand, shapes: Sequence[tuple[int, ...]], folder: Path, most_bytes: int | None
) -> Iterator[Streams]:
    """Give room for streams while the context lasts.

    Raises:
        PrerequisiteError: there is none.
    """
    if fits_in_memory(demand, folder, most_bytes):
        yield Streams(demand, shapes, None)
        return
    path = folder / _FILE
    _log.info("tune: %s have no room in memory: they go to '%s'", demand, path)
    count = demand.num_streams * demand.num_tokens * demand.width
    file = torch.from_file(str(path), shared=True, size=count, dtype=demand.dtype)
    try:
        yield Streams(demand, shapes, file)
    finally:
        path.unlink(missing_ok=True)
