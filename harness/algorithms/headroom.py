"""A range of NVFP4 inputs that leaves room above what was seen, for larger values in service.

What is anchored is the small end: the largest values of nearly all blocks come to lie in the lower
part of E4M3's range, so that 16384 times the smallest of them still has a scale. Blocks larger than
all but one in 10,000 may be cut off.

Source: nvidia-modelopt 0.47.0, torch/quantization/calib/nvfp4_act_headroom.py
(`nvfp4_act_headroom`), with its defaults. Step for step the same arithmetic, for its counts are
float32 and so is their sum.
"""

import torch
from torch import Tensor

from harness.formats.nvfp4 import in_blocks
from harness.ranks import Ranks

_STEPS, _LOWEST, _HIGHEST = 512, -40.0, 40.0
"""Of the logarithm to base 2."""
_ANCHOR, _UPPER = 1.0, 99.99
"""Percent of the blocks that are smaller."""
_ROOM = 16384.0
"""How much larger than the anchor the range is, at least."""
_FLOOR = 1e6
"""Blocks smaller by more than that are no anchor."""


class Headroom:
    """Counts the blocks of one quantizer's inputs by how large their largest value is."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self._counts: Tensor | None = None
        """Of each step, int64."""
        self._before: Tensor | None = None
        """Those of all ranks, up to the last time that they were put together."""

    def see(self, x: Tensor) -> None:
        """Count the blocks of one input [..., I]; those of zeros count for nothing."""
        largest = in_blocks(x).abs().amax(dim=-1).flatten().float()
        is_counted = largest > 0
        step = _step(torch.log2(torch.where(is_counted, largest, 1.0)))
        if self._counts is None:
            self._counts = torch.zeros(_STEPS, dtype=torch.long, device=x.device)
        self._counts.scatter_add_(0, step, is_counted.long())

    def merge(self, ranks: Ranks) -> None:
        """Let each rank have counted what all of them counted; all call it at the same time."""
        own = [0] * _STEPS if self._counts is None else self._counts.tolist()
        added = torch.tensor(ranks.all_sum(own))
        self._before = added if self._before is None else self._before + added
        self._counts = None

    def amax(self, largest: float) -> float:
        """Return the range; that of the largest value where the counts say nothing."""
        each = [one.cpu() for one in (self._before, self._counts) if one is not None]
        if not each:
            return largest
        counts = sum(each[1:], start=each[0]).float()
        upper = _percentile(counts, _UPPER)
        anchor = _percentile(counts, _ANCHOR, floor=upper / _FLOOR) if upper else None
        if not upper or not anchor:
            return largest
        return float(torch.tensor(max(_ROOM * anchor, upper), dtype=torch.float32))


def _percentile(counts: Tensor, percent: float, floor: float | None = None) -> float | None:
    """Return the middle of the step in which a share of all blocks is reached."""
    if floor is not None:
        counts = counts.clone()
        counts[: int(_step(torch.log2(torch.tensor(floor))))] = 0
    total = counts.sum()
    if total <= 0:
        return None
    reached = torch.searchsorted(torch.cumsum(counts, dim=0), percent / 100.0 * total)
    step = int(reached.clamp(0, _STEPS - 1))
    return float(2.0 ** (_LOWEST + (step + 0.5) / _STEPS * (_HIGHEST - _LOWEST)))


def _step(logarithm: Tensor) -> Tensor:
    share = (logarithm - _LOWEST) / (_HIGHEST - _LOWEST)
    return (share * _STEPS).floor().long().clamp_(0, _STEPS - 1)
