"""Quantize weights to NVFP4 by an algorithm.

Shapes: E weights of one shape, O output features, I input features, B blocks of 16 input features.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from harness.algorithms import four_over_six, gptaq, gptq, local_hessian, mse
from harness.algorithms.moments import SecondMoments
from harness.artifacts import Algorithm, Rounding, Scales
from harness.formats.e4m3 import E4M3_MAX
from harness.formats.nvfp4 import BLOCK, block_scales, check_width, global_scales, stored
from harness.formats.on_gpu import brought
from harness.formats.parts import row_parts

_MOMENT_NUMEL = 1 << 28
"""Numbers of second moments that are worked on at a time: 1 GiB, and as much for each factor."""


def quantize_weights(
    weight_EOI: Tensor,
    algorithm: Algorithm,
    *,
    amax: Sequence[float],
    moments: SecondMoments | None = None,
) -> Mapping[str, Tensor]:
    """Return what `Nvfp4.quantize_weights` does, which engines load all the same.

    Args:
        weight_EOI: finite values of any floating type.
        algorithm: how scales and codes are chosen.
        amax: for each, the largest absolute value of those that share its global scale.
        moments: of its inputs; None for an algorithm that does not ask for them.

    Raises:
        ValueError: the algorithm needs moments, and there are none.
    """
    check_width(weight_EOI.shape[-1])
    top = four_over_six.TOP if algorithm.scales is Scales.FOUR_OVER_SIX else E4M3_MAX
    ranges, scale_2_E = global_scales(amax, top=top)
    largest_E = brought(torch.tensor(ranges, dtype=torch.float32), weight_EOI.device)
    scale_2_E = brought(scale_2_E, weight_EOI.device)
    aim_EOI = weight_EOI
    if algorithm.rounding is Rounding.GPTAQ:
        aim_EOI = _aimed(weight_EOI, _given(moments))
    scale_EOB = _scales(aim_EOI, algorithm.scales, largest_E, scale_2_E, moments)
    if algorithm.rounding is not Rounding.NEAREST:
        step_EOB = scale_EOB.float() * scale_2_E[:, None, None]
        weight_EOI = _made_up(weight_EOI, aim_EOI, algorithm, step_EOB, _given(moments))
    return stored(weight_EOI, scale_EOB, scale_2_E)


def _scales(
    weight_EOI: Tensor,
    scales: Scales,
    largest_E: Tensor,
    scale_2_E: Tensor,
    moments: SecondMoments | None,
) -> Tensor:
    """Return the E4M3 scales [E, O, B] of blocks."""
    number, rows, width = weight_EOI.shape
    scale_EOB = weight_EOI.new_empty(number, rows, width // BLOCK, dtype=torch.float8_e4m3fn)
    moment_EBkk = _given(moments).blocks() if scales is Scales.LOCAL_HESSIAN else None
    for part in row_parts(weight_EOI.shape, weight_EOI.device):
        where = part.weights, part.rows
        weight, scale_2 = weight_EOI[where], scale_2_E[part.weights]
        if scales is Scales.FOUR_OVER_SIX:
            scale_EOB[where] = four_over_six.choose(weight, largest_E[part.weights], scale_2)
            continue
        found = block_scales(weight, scale_2)
        if scales is Scales.MSE:
            found = mse.choose(weight, found, scale_2)
        elif moment_EBkk is not None:
            found = local_hessian.choose(weight, found, scale_2, moment_EBkk[part.weights])
        scale_EOB[where] = found
    return scale_EOB


def _made_up(
    weight_EOI: Tensor,
    aim_EOI: Tensor,
    algorithm: Algorithm,
    step_EOB: Tensor,
    moments: SecondMoments,
) -> Tensor:
    """Round by GPTQ, as many weights at a time."""
    values_EOI = torch.empty(weight_EOI.shape, dtype=torch.float32, device=weight_EOI.device)
    for part in _parts(weight_EOI):
        given = weight_EOI[part], step_EOB[part], moments.part(part)
        aim = None if aim_EOI is weight_EOI else aim_EOI[part]
        values_EOI[part] = gptq.made_up(*given, damping=algorithm.damping, aim_EOI=aim)
    return values_EOI


def _aimed(weight_EOI: Tensor, moments: SecondMoments) -> Tensor:
    """Change weights toward the unquantized model's outputs, as many at a time."""
    found_EOI = torch.empty(weight_EOI.shape, dtype=torch.float32, device=weight_EOI.device)
    for part in _parts(weight_EOI):
        found_EOI[part] = gptaq.aimed(weight_EOI[part], moments.part(part))
    return found_EOI


def _parts(weight_EOI: Tensor) -> Iterator[slice]:
    """Yield as many weights at a time as there is room for their moments."""
    number, _, width = weight_EOI.shape
    size = max(1, _MOMENT_NUMEL // width**2)
    return (slice(begin, begin + size) for begin in range(0, number, size))


def _given(moments: SecondMoments | None) -> SecondMoments:
    if moments is None:
        message = "the algorithm needs what the inputs are like, and nothing was measured"
        raise ValueError(message)
    return moments
