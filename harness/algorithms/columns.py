"""How far a rounded weight, and each of its columns, is from what it was.

A feature that few inputs use may make up for all others at next to no cost, until its column is
another one. That is free on the texts that calibrated, and on no others; and nobody could tell such
a column from a damaged one. `harness verify` asks the same of each column of a smoothed weight
(`harness/verify/gains.py`), with more room. It is stated here once more, for what checks must not
rest on what is checked; a test holds both together.

Shapes: E weights, O output features, I input features, B blocks of 16 input features, k features of
one.
"""

import torch
from torch import Tensor

from harness.formats.nvfp4 import in_blocks

_LARGE = 0.25
"""What is no smaller than this share of its block's largest value tells of its column; what is
smaller may become nothing, rounded to the nearest. Where all is smaller, all of it tells."""
_NOTHING = 1 / 24
"""Of a block's largest value: half of E2M1's smallest step."""
_SLACK = 3.0
"""Of the squared error of a column that may become nothing."""


def are_near(done_EOI: Tensor, weight_EOI: Tensor, *, share: float) -> Tensor:
    """Return which weights [E] were changed by no more than a share of their norm.

    What is not finite is far from anything.
    """
    changed_E = (done_EOI - weight_EOI).flatten(1).norm(dim=1)
    is_near_E: Tensor = changed_E <= share * weight_EOI.flatten(1).norm(dim=1)
    return is_near_E


def distances(done_EOI: Tensor, weight_EOI: Tensor) -> Tensor:
    """Return by what factor [E, I] columns are larger or smaller than they were, 1 at least.

    The factor is that of least squares: infinity where a column points the other way, 1 where all
    of it is so small beside its blocks that it may become nothing.

    Args:
        done_EOI: rounded values; what is not finite is far from anything.
        weight_EOI: float32.
    """
    size_EOBk = in_blocks(weight_EOI.abs())
    largest_EOB1 = size_EOBk.amax(-1, keepdim=True)
    is_large_EOI = (size_EOBk >= _LARGE * largest_EOB1).flatten(-2)
    large_EOI = torch.where(is_large_EOI, weight_EOI, 0.0)
    all_EI, squares_EI = (one.square().sum(1) for one in (weight_EOI, large_EOI))
    some_EOI = torch.where(squares_EI[:, None] > 0, large_EOI, weight_EOI)
    ratio_EI = (done_EOI * some_EOI).sum(1) / some_EOI.square().sum(1)
    distance_EI = torch.where(ratio_EI > 0, torch.maximum(ratio_EI, 1 / ratio_EI), torch.inf)
    error_EI = (done_EOI - weight_EOI).square().sum(1)
    room_EI = largest_EOB1.square().sum(1).expand(-1, -1, size_EOBk.shape[-1]).flatten(1)
    room_EI = room_EI * _NOTHING**2
    is_nothing_EI = (all_EI <= room_EI) & (error_EI <= _SLACK * room_EI)
    return torch.where(is_nothing_EI, 1.0, distance_EI)
