"""How fast the files of a model are read: tried all over them, for a disk is not alike everywhere.

A part of the files may be in the memory of the system or of a host, and another not.
"""

import math
import time
from collections.abc import Iterator

import torch

from harness.models.pieces import Span
from harness.models.source import Source
from harness.models.transfer import Transfer

STRETCH_BYTES = 128 << 20
MOST_STRETCHES = 12


def read_rate(source: Source) -> float:
    """Return the bytes a second at which stretches from all over the weight files are read.

    Raises:
        ModelError: a file cannot be read.
    """
    every = list(_stretches(source))
    some = every[:: max(1, math.ceil(len(every) / MOST_STRETCHES))]
    block = torch.zeros(max(one.num_bytes for one in some), dtype=torch.uint8)
    with Transfer(source.path, block.device) as transfer:
        started = time.perf_counter()
        for one in some:
            transfer.read([one], block)
        return sum(one.num_bytes for one in some) / (time.perf_counter() - started)


def _stretches(source: Source) -> Iterator[Span]:
    ends: dict[str, int] = {}
    stored = [header for name, header in source.tensors.items() if name not in source.packed]
    stored += [header for one in source.packed.values() for header in (one.codes, one.scales)]
    for header in stored:
        ends[header.shard] = max(ends.get(header.shard, 0), header.offset + header.num_bytes)
    for shard, end in ends.items():
        for begin in range(0, end, STRETCH_BYTES):
            yield Span(shard, begin, min(STRETCH_BYTES, end - begin), into=0)
