"""GPTQ: round one input feature after another, and let the others make up for its error.

Features are rounded in the order of their energy, the largest first: their errors have the most
others left to be made up by. The scales of blocks are chosen beforehand, so that the order costs no
sorting of the stored weight. All experts of a projection are done together.

Directions that no text showed cost nothing, so a weight may be changed in them as far as it likes:
on inputs of low rank that came to half of its norm. Where it is more than a fifth, twice what
rounding alone does, the weight is done again with more damping, which binds it to what it was. One
that is changed as much with any damping, as beside features of a million times the energy of
others, gets the nearest codes.

Source: Frantar et al., "GPTQ", arXiv 2210.17323; order and static groups as in its authors' code.
Shapes: E weights, O output features, I input features, B blocks of 16 input features.
"""

import torch
from torch import Tensor

from harness.algorithms.moments import SecondMoments
from harness.formats.nvfp4 import BLOCK, nearest, nearest_by_search

_MOST_CHANGED = 0.2
"""Of the norm of a weight."""
_MOST_DAMPING = 10.0
_TOGETHER = 128
"""Features whose errors are handed on to all that follow in one product."""


def made_up(
    weight_EOI: Tensor,
    scale_EOB: Tensor,
    scale_2_E: Tensor,
    moments: SecondMoments,
    *,
    damping: float,
) -> Tensor:
    """Return values [E, O, I], float32, that the scales hold exactly.

    Args:
        weight_EOI: of any floating type.
        scale_EOB: E4M3 scales of blocks.
        scale_2_E: global scales.
        moments: of whole inputs.
        damping: share of each feature's own energy that is added to it. Rounding an input to E2M1
            adds some 1 % of it as noise.
    """
    weight_EOI = weight_EOI.float()
    step_EOI = (scale_EOB.float() * scale_2_E[:, None, None]).repeat_interleave(BLOCK, dim=-1)
    done_EOI = _with_damping(weight_EOI, step_EOI, moments.whole(damping=damping))
    while (which := _changed_too_much(done_EOI, weight_EOI)).numel():
        damping *= 10
        left_EOI, step = weight_EOI[which], step_EOI[which]
        if damping > _MOST_DAMPING:
            done_EOI[which] = nearest(left_EOI / step) * step
            break
        some = SecondMoments(moments.sums[which], moments.tokens_E[which])
        done_EOI[which] = _with_damping(left_EOI, step, some.whole(damping=damping))
    return done_EOI


def _changed_too_much(done_EOI: Tensor, weight_EOI: Tensor) -> Tensor:
    """Return the indices of such weights."""
    changed_E = (done_EOI - weight_EOI).flatten(1).norm(dim=1)
    is_too_much_E = changed_E > _MOST_CHANGED * weight_EOI.flatten(1).norm(dim=1)
    return torch.nonzero(is_too_much_E).flatten()


def _with_damping(weight_EOI: Tensor, step_EOI: Tensor, moment_EII: Tensor) -> Tensor:
    order_EI = moment_EII.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True, stable=True)
    factor_EII = _factor(_ordered(_ordered(moment_EII, order_EI).mT, order_EI))
    rounded = _rounded(_ordered(weight_EOI, order_EI), _ordered(step_EOI, order_EI), factor_EII)
    return _ordered(rounded, order_EI.argsort(dim=1))


def _factor(moment_EII: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment_EII))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _ordered(x_EOI: Tensor, order_EI: Tensor) -> Tensor:
    """Return the last dimension in another order."""
    return x_EOI.gather(-1, order_EI[:, None, :].expand_as(x_EOI))


def _rounded(left_EOI: Tensor, step_EOI: Tensor, factor_EII: Tensor) -> Tensor:
    """Round feature after feature; `left_EOI` is used up."""
    done_EOI = torch.empty_like(left_EOI)
    width = left_EOI.shape[-1]
    for begin in range(0, width, _TOGETHER):
        end = min(begin + _TOGETHER, width)
        now, step = left_EOI[..., begin:end], step_EOI[..., begin:end]
        factor = factor_EII[:, begin:end, begin:end]
        error = torch.empty_like(now)
        for at in range(end - begin):
            value = nearest_by_search(now[..., at] / step[..., at]) * step[..., at]
            done_EOI[..., begin + at] = value
            error[..., at] = (now[..., at] - value) / factor[:, at, at, None]
            now[..., at + 1 :] -= error[..., at, None] * factor[:, None, at, at + 1 :]
        left_EOI[..., end:] -= error @ factor_EII[:, begin:end, end:]
    return done_EOI
