"""The rounding of GPTQ on a GPU: what `gptq.round_features` does, to the same bits, in one kernel.

There a feature takes some ten small kernels, and a model of 135 million weights has 170,000
features. Here some output features stay in registers from the first input feature to the last.
Products are rounded before they are added (no fused multiply-add), as tensor functions do it.

Shapes: E weights, O output features, k input features that are rounded together.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

from harness.formats.rounding_triton import nearest_e2m1

ROWS = 32
"""Output features of one program: one for each lane of its only warp, and half of its registers."""
OPTIONS = {"num_warps": 1, "enable_fp_fusion": False}
_LEAST = 64
"""Input features that a kernel is compiled for, where there are fewer too."""


def round_features(
    moved_EkO: Tensor, weight_EkO: Tensor, step_EkO: Tensor, factor_Ekk: Tensor
) -> Tensor:
    """Return values [E, k, O].

    Args:
        moved_EkO: weights that make up for all features that come before these.
        weight_EkO: as they were; the features of each follow each other in memory.
        step_EkO: scales, as the weights lie.
        factor_Ekk: lower triangles with ones on the diagonal, however they lie.
    """
    moved_EkO = moved_EkO.contiguous()
    number, features, rows = moved_EkO.shape
    values_EkO = torch.empty_like(moved_EkO)
    given = moved_EkO, weight_EkO, step_EkO, factor_Ekk, values_EkO
    strides = weight_EkO.stride(0), step_EkO.stride(0), *factor_Ekk.stride()
    grid = (triton.cdiv(rows, ROWS), number)
    most = max(_LEAST, triton.next_power_of_2(features))
    with torch.cuda.device_of(moved_EkO):  # Triton starts kernels on the current GPU
        kernel[grid](*given, *strides, rows, features, MOST=most, ROWS=ROWS, **OPTIONS)
    return values_EkO


@triton.jit
def kernel(
    moved,
    weight,
    step,
    factor,
    values,
    weight_E,
    step_E,
    factor_E,
    factor_row,
    factor_column,
    num_rows,
    num_features,
    MOST: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Round some output features of one weight."""
    which = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_rows
    feature = tl.arange(0, MOST)
    moved += which * num_features * num_rows
    values += which * num_features * num_rows + row
    weight += which * weight_E + row
    step += which * step_E + row
    factor += which * factor_E + feature * factor_column
    is_there = (feature < num_features)[:, None] & is_row[None, :]
    x = tl.load(moved + feature[:, None] * num_rows + row[None, :], mask=is_there, other=0.0)
    for done in range(num_features):
        at = num_features - 1 - done
        own = tl.sum(tl.where((feature == at)[:, None], x, 0.0), axis=0)
        size = tl.load(step + at * num_rows, mask=is_row, other=1.0)
        value = nearest_e2m1(tl.math.div_rn(own, size)) * size
        tl.store(values + at * num_rows, value, mask=is_row)
        change = tl.load(weight + at * num_rows, mask=is_row, other=0.0) - value
        times = tl.load(factor + at * factor_row, mask=feature < at, other=0.0)
        x += change[None, :] * times[:, None]
