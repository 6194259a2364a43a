"""GPTAQ: round toward what the unquantized model's layer gives, from inputs of a quantized model.

GPTQ keeps W x for the inputs x of the unquantized model, which the quantized one never sees: layers
before have lost something, and the input is rounded itself. Here x are the inputs that the
quantized model has, rounded as engines do, and y those of the unquantized one for the same tokens:
the weight whose output from x is nearest to W y is found first, by least squares, and GPTQ rounds
that.

On few tokens, and where few inputs dominate, least squares would follow noise. So it is bound to
the weight as it was, by a share of each feature's own energy, and by more where it changes the
weight more than rounding itself does. Noise in inputs also makes the best weight a smaller one, by
some percent; each row is made as large as it was, so that a wrong scale can be told from it.

Source: Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", arXiv
2504.02692, which makes up for both while it rounds; in one step beforehand it takes the same
moments and no kernel of its own.
Shapes: E weights, O output features, I input features.
"""

import torch
from torch import Tensor

from harness.algorithms.columns import are_near
from harness.algorithms.moments import SecondMoments

_BOUND = 0.5
"""Share of each feature's own energy that binds the weight to what it was."""
_OPEN = 4.0
"""What is added of what few tokens leave open (I / n), beside what moments have of it."""
_MOST_BOUND = 100.0
_MOST_LARGER = 1.2
"""By how much a row may have to be made larger or smaller; other ones are left as they were."""
_MOST_CHANGED = 0.15
"""Of the norm of a weight: GPTQ changes it by as much again."""


def aimed(weight_EOI: Tensor, moments: SecondMoments) -> Tensor:
    """Return the weights [E, O, I], float32, whose output from x is nearest to W y.

    Args:
        weight_EOI: W, of any floating type.
        moments: of whole inputs x, with the sums of y x^T; without these it is W that is nearest.
    """
    weight_EOI = weight_EOI.float()
    found_EOI, bound = _bound(weight_EOI, moments, _BOUND), _BOUND
    while True:
        is_near_E = are_near(found_EOI, weight_EOI, share=_MOST_CHANGED)
        which = torch.nonzero(~is_near_E).flatten()  # a GPU is waited for
        if not which.numel():
            return found_EOI
        bound, left_EOI = 4 * bound, weight_EOI[which]
        is_last = bound > _MOST_BOUND
        found_EOI[which] = left_EOI if is_last else _bound(left_EOI, moments.part(which), bound)


def _bound(weight_EOI: Tensor, moments: SecondMoments, bound: float) -> Tensor:
    """Return W + W (Y - X) (X + D)^-1, each row as large as W's.

    X are the means of x x^T, Y those of y x^T, and D is what binds.
    """
    if moments.cross is None:
        return weight_EOI.clone()
    tokens_E11 = moments.tokens_E.clamp(min=1)[:, None, None]
    open_E1 = weight_EOI.shape[-1] / tokens_E11[:, 0]
    firm_EII = moments.whole(damping=bound + _OPEN * open_E1)
    lost_EII = (moments.cross - moments.sums) / tokens_E11
    # All features alike in energy, so that float32 is enough where few dominate.
    root_EI = firm_EII.diagonal(dim1=1, dim2=2).rsqrt()
    even_EII = firm_EII * root_EI[:, :, None] * root_EI[:, None, :]
    factor_EII, failed_E = torch.linalg.cholesky_ex(even_EII)
    owed_EIO = (weight_EOI @ lost_EII).mT * root_EI[:, :, None]
    change_EIO = torch.cholesky_solve(owed_EIO, factor_EII) * root_EI[:, :, None]
    found_EOI = weight_EOI + change_EIO.mT
    squares_EO = weight_EOI.square().sum(2)
    larger_EO = squares_EO / (found_EOI * weight_EOI).sum(2)
    is_alike_EO = (larger_EO > 1 / _MOST_LARGER) & (larger_EO < _MOST_LARGER)
    found_EOI *= larger_EO[:, :, None]
    found_EOI = torch.where(is_alike_EO[:, :, None], found_EOI, weight_EOI)
    return found_EOI.masked_fill_(failed_E[:, None, None] > 0, torch.inf)
