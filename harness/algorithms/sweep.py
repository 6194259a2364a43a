"""Try scales of blocks, and keep for each block the one with the least error.

Shapes: E weights, O output features, I input features, B blocks of 16 input features, k features
of a block.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from harness.formats.e4m3 import E4M3_MAX
from harness.formats.nvfp4 import in_blocks, nearest

ErrorOf = Callable[[Tensor], Tensor]
"""Takes errors [E, B, O, k] and returns what each block's counts [E, B, O]."""
_LOWEST, _HIGHEST = -8, 7
"""Codes of E4M3 beside that of the block's largest value: from half its scale to nearly twice.
nvidia-modelopt tries all 126. Below half a scale the largest value alone loses more than rounding
costs, and above twice nothing is won: the smaller scale has every second step of the larger."""
_MOST_CODE = 126


def codes_around(scale_EOB: Tensor) -> Iterator[Tensor]:
    """Yield E4M3 scales around those of blocks' largest values, the smallest first."""
    code_EOB = scale_EOB.view(torch.uint8).to(torch.int16)
    for offset in range(_LOWEST, _HIGHEST + 1):
        yield (code_EOB + offset).clamp(1, _MOST_CODE).to(torch.uint8).view(scale_EOB.dtype)


def squared(delta_EBOk: Tensor) -> Tensor:
    """Return the sum of squares of each block's errors."""
    return delta_EBOk.square().sum(-1)


def best_scales(
    weight_EOI: Tensor, scale_2_E: Tensor, tried: Iterable[Tensor], error_of: ErrorOf
) -> Tensor:
    """Return of the E4M3 scales [E, O, B] that are tried those with the least error.

    The first of equals is taken. A block of zeros keeps scale 1: none loses anything.
    """
    blocks_EBOk = _by_block(weight_EOI)
    best_EOB: Tensor | None = None
    least_EBO = blocks_EBOk.new_tensor(0)
    for scale_EOB in tried:
        step_EBO1 = (scale_EOB.float() * scale_2_E[:, None, None]).mT.unsqueeze(-1)
        error_EBO = error_of(nearest(blocks_EBOk / step_EBO1) * step_EBO1 - blocks_EBOk)
        if best_EOB is None:
            best_EOB, least_EBO = scale_EOB, error_EBO
            continue
        is_less_EBO = error_EBO < least_EBO
        least_EBO = torch.where(is_less_EBO, error_EBO, least_EBO)
        best_EOB = _where(is_less_EBO.mT, scale_EOB, best_EOB)
    if best_EOB is None:
        message = "no scale was tried"
        raise ValueError(message)
    is_zero_EOB = (blocks_EBOk == 0).all(-1).mT
    return _where(is_zero_EOB, torch.ones_like(best_EOB, dtype=torch.float32), best_EOB)


def _where(which: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Choose between E4M3 numbers, which torch cannot do; all of them are float32 numbers."""
    return torch.where(which, one.float(), other.float()).clamp(max=E4M3_MAX).to(other.dtype)


def _by_block(weight_EOI: Tensor) -> Tensor:
    """Return [E, B, O, k], float32: what shares a block of inputs lies together."""
    return in_blocks(weight_EOI.float()).transpose(1, 2).contiguous()
