"""Adds up the outputs of each token's experts on a GPU, each row read once.

Shapes: N tokens, K experts of a token, S rows of outputs, H hidden size.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

_BLOCK = 2048
"""Features of a program, at most."""
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def weighted_sum(output_SH: Tensor, places_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Return the sums [N, H], added up in float32, of the rows at `places_NK`, weighted."""
    num_tokens, num_each = places_NK.shape
    width = output_SH.shape[1]
    sum_NH = torch.empty(num_tokens, width, dtype=output_SH.dtype, device=output_SH.device)
    block = min(_BLOCK, triton.next_power_of_2(width))
    given = output_SH.contiguous(), places_NK.contiguous(), weights_NK.contiguous()
    with torch.cuda.device_of(output_SH):  # Triton starts kernels on the current GPU
        kernel[(num_tokens, triton.cdiv(width, block))](
            *given, sum_NH, width, EACH=num_each, BLOCK=block, **OPTIONS
        )
    return sum_NH


@triton.jit
def kernel(rows, places, weights, sums, width, EACH: tl.constexpr, BLOCK: tl.constexpr):
    """Add up some features of one token."""
    token = tl.program_id(0).to(tl.int64)
    feature = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    sum = tl.zeros((BLOCK,), dtype=tl.float32)  # noqa: A001
    for one in range(EACH):
        place = tl.load(places + token * EACH + one).to(tl.int64)
        weight = tl.load(weights + token * EACH + one).to(tl.float32)
        row = tl.load(rows + place * width + feature, mask=feature < width, other=0.0)
        sum += row.to(tl.float32) * weight  # noqa: A001
    where = sums + token * width + feature
    tl.store(where, sum.to(sums.dtype.element_ty), mask=feature < width)
