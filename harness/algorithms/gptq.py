"""GPTQ: round one input feature after another, and let the others make up for its error.

Features are rounded in the order of their energy, the largest first: their errors have the most
others left to be made up by. The scales of blocks are chosen beforehand, so that the order costs no
sorting of the stored weight. All experts of a projection are done together.

Written with the factor of the moments themselves, not of their inverse: a feature is moved by what
all before it were changed by, each times its entry in the feature's column of the Cholesky factor
over that column's diagonal. That is the published algorithm, where a feature's error over the
inverse's diagonal is handed on to all that follow, with one factorization instead of three and
without an inverse, which loses digits where few inputs dominate.

Directions that no text showed cost nothing, so a weight may be changed in them as far as it likes:
on inputs of low rank that came to half of its norm. Mostly it is a few columns, of features that
few inputs use, which make up for all others until they are other columns. These are bound: with
so much damping that they get the nearest codes, for which in turn the others make up. Where it is
no single column, and the weight is changed by more than a fifth all the same, twice what rounding
alone does, all of it is done again with more damping. One that is changed as much with any damping,
as beside features of a million times the energy of others, gets the nearest codes.

Source: Frantar et al., "GPTQ", arXiv 2210.17323; order and static groups as in its authors' code.
Chee et al., "QuIP", arXiv 2307.13304, theorem 6: that both ways are one.
Shapes: E weights, O output features, I input features, B blocks of 16 input features, k features
that are rounded together.
"""

import torch
from torch import Tensor

from harness.algorithms.columns import are_near, distances
from harness.algorithms.moments import SecondMoments
from harness.formats.nvfp4 import BLOCK, nearest, nearest_by_search
from harness.kernels import triton_module

_MOST_CHANGED = 0.2
"""Of the norm of a weight."""
_FAR, _NEAR = 1.3, 1.1
"""By what factor a column may be larger or smaller; where one is by more, all that are not near are
bound, for what one made up for falls to the next. The nearest codes came to 1.3 on a real model;
`harness verify` allows 1.41."""
_MOST_DAMPING = 10.0
_BOUND = 1e8
"""The damping of a feature whose column must not make up for others."""
_TOGETHER = 64
"""Features that are rounded one by one; what they owe those before is one product for all."""


def made_up(
    weight_EOI: Tensor,
    step_EOB: Tensor,
    moments: SecondMoments,
    *,
    damping: float,
    aim_EOI: Tensor | None = None,
) -> Tensor:
    """Return values [E, O, I], float32, that the scales hold exactly.

    Args:
        weight_EOI: of any floating type.
        step_EOB: what a code of 1 stands for in each block, float32.
        moments: of whole inputs.
        damping: share of each feature's own energy that is added to it. Rounding an input to E2M1
            adds some 1 % of it as noise.
        aim_EOI: what is rounded in place of the weights, float32; columns that are bound are the
            weights' own all the same, and it is these that the values stay near.
    """
    weight_EOI = weight_EOI.float()
    aim_EOI, moments = weight_EOI if aim_EOI is None else aim_EOI, moments._replace(cross=None)
    damping_EI = torch.full_like(weight_EOI[:, 0], damping)
    done_EOI = _with_damping(aim_EOI, step_EOB, moments.whole(damping=damping_EI))
    while True:
        more_EI = _more_damping(done_EOI, weight_EOI, aim_EOI, damping_EI)
        which = torch.nonzero((more_EI > damping_EI).any(1)).flatten()  # a GPU is waited for
        if not which.numel():
            return done_EOI
        damping_EI = more_EI
        moment_EII = moments.part(which).whole(damping=damping_EI[which])
        is_bound_E1I = (damping_EI[which] == _BOUND)[:, None]
        rounded_EOI = torch.where(is_bound_E1I, weight_EOI[which], aim_EOI[which])
        done_EOI[which] = _with_damping(rounded_EOI, step_EOB[which], moment_EII)
        all_bound = which[(damping_EI[which] == _BOUND).all(1)]
        if all_bound.numel():
            step_EOI = step_EOB[all_bound].repeat_interleave(BLOCK, dim=-1)
            done_EOI[all_bound] = nearest(weight_EOI[all_bound] / step_EOI) * step_EOI


def _more_damping(
    done_EOI: Tensor, weight_EOI: Tensor, aim_EOI: Tensor, damping_EI: Tensor
) -> Tensor:
    """Return the damping [E, I] to do weights again with, which is as before where all is well."""
    distance_EI = distances(done_EOI, weight_EOI)
    is_far_EI = (damping_EI < _BOUND) & (distance_EI > _FAR)
    is_far_E1 = is_far_EI.any(1, keepdim=True)
    own_EI = distance_EI if aim_EOI is weight_EOI else distances(done_EOI, aim_EOI)
    makes_up_EI = own_EI > _NEAR
    is_near_E = are_near(done_EOI, weight_EOI, share=_MOST_CHANGED)
    is_raised_EI = ~is_near_E[:, None] & ~is_far_E1
    more_EI = torch.where(is_raised_EI, 10 * damping_EI, damping_EI)
    is_bound_EI = (is_far_E1 & (is_far_EI | makes_up_EI)) | (more_EI > _MOST_DAMPING)
    return torch.where(is_bound_EI, _BOUND, more_EI)


def _with_damping(weight_EOI: Tensor, step_EOB: Tensor, moment_EII: Tensor) -> Tensor:
    """Return values; infinity where the moments have no factor."""
    energy_EI = moment_EII.diagonal(dim1=1, dim2=2)
    order_EI = energy_EI.argsort(dim=1, descending=True, stable=True).flip(1)
    # Of the upper factor torch keeps columns together: rows of the lower one, as they are read.
    upper_EII, failed_E = torch.linalg.cholesky_ex(_both_ordered(moment_EII, order_EI), upper=True)
    factor_EII = upper_EII.mT / upper_EII.diagonal(dim1=1, dim2=2)[:, None, :]
    weight_EIO = _ordered(weight_EOI.mT, order_EI)
    values_EIO = _rounded(weight_EIO, _ordered(step_EOB.mT, order_EI // BLOCK), factor_EII)
    values_EIO.masked_fill_(failed_E[:, None, None] > 0, torch.inf)
    return _ordered(values_EIO, order_EI.argsort(dim=1)).mT.contiguous()


def _ordered(x_EIO: Tensor, order_EI: Tensor) -> Tensor:
    """Return the rows in another order."""
    return x_EIO.gather(1, order_EI[:, :, None].expand(-1, -1, x_EIO.shape[2]))


def _both_ordered(moment_EII: Tensor, order_EI: Tensor) -> Tensor:
    return _ordered(_ordered(moment_EII, order_EI).mT, order_EI)


def _rounded(weight_EIO: Tensor, step_EIO: Tensor, factor_EII: Tensor) -> Tensor:
    """Round from the last feature to the first.

    Args:
        weight_EIO: a feature after another, each with all output features.
        step_EIO: scales of the same.
        factor_EII: lower triangles with ones on the diagonal.
    """
    values_EIO, change_EIO = torch.empty_like(weight_EIO), torch.empty_like(weight_EIO)
    kernel = triton_module("harness.algorithms.gptq_triton", weight_EIO.device)
    round_together = round_features if kernel is None else kernel.round_features
    for end in range(weight_EIO.shape[1], 0, -_TOGETHER):
        now, later = slice(max(0, end - _TOGETHER), end), slice(end, None)
        weight_EkO, owed_EkI = weight_EIO[:, now], factor_EII[:, later, now].mT
        moved_EkO = torch.baddbmm(weight_EkO, owed_EkI, change_EIO[:, later])
        given = moved_EkO, weight_EkO, step_EIO[:, now], factor_EII[:, now, now]
        values_EIO[:, now] = round_together(*given)
        torch.sub(weight_EkO, values_EIO[:, now], out=change_EIO[:, now])
    return values_EIO


def round_features(
    moved_EkO: Tensor, weight_EkO: Tensor, step_EkO: Tensor, factor_Ekk: Tensor
) -> Tensor:
    """Return values [E, k, O], from the last feature to the first.

    Args:
        moved_EkO: weights that make up for all features that come before these; it is used up.
        weight_EkO: as they were.
        step_EkO: scales.
        factor_Ekk: lower triangles with ones on the diagonal.
    """
    values_EkO = torch.empty_like(moved_EkO)
    for at in reversed(range(moved_EkO.shape[1])):
        step_EO = step_EkO[:, at]
        value_EO = nearest_by_search(moved_EkO[:, at] / step_EO) * step_EO
        values_EkO[:, at] = value_EO
        change_E1O = (weight_EkO[:, at] - value_EO)[:, None]
        moved_EkO[:, :at] += change_E1O * factor_Ekk[:, at, :at, None]
    return values_EkO
