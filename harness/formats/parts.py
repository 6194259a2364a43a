"""Cut stacked weights into parts whose temporaries stay small.

Shapes: E weights of one shape, O output features, I input features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

_CPU_NUMEL = 1 << 20
"""Of the powers of two from 2^15 to 2^22 the fastest for NVFP4 on two cores: 300 million weights a
second, against 200 for 2^16 and 230 for 2^22, whose temporaries leave the cache."""
_GPU_NUMEL = 1 << 26


class Part(NamedTuple):
    """Some rows of some weights."""

    weights: slice
    rows: slice


def row_parts(shape_EOI: torch.Size, device: torch.device, *, multiple: int = 1) -> Iterator[Part]:
    """Yield the parts of all weights: several whole ones at a time, or rows of a big one.

    Rows are cut at multiples of `multiple`.
    """
    num_weights, num_rows, width = shape_EOI
    numel = _CPU_NUMEL if device.type == "cpu" else _GPU_NUMEL
    rows = min(num_rows, max(1, numel // max(width, 1) // multiple) * multiple)
    weights = max(1, numel // max(1, num_rows * width)) if rows == num_rows else 1
    for first in range(0, num_weights, weights):
        for row in range(0, num_rows, max(rows, 1)):
            yield Part(slice(first, first + weights), slice(row, min(row + rows, num_rows)))
