"""Normalizes rows by their root mean square on a GPU, in one pass over them.

What is rounded, and when, is as models have it; only the squares are added up in another order.

Shapes: R rows, W features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

MOST_FEATURES = 1 << 14
"""Of a row, which a program holds at once."""
_TILE = 4096
"""Numbers of a program: several rows where they are short."""
OPTIONS = {"num_warps": 8, "enable_fp_fusion": False}


def normalize(
    input_RW: Tensor,
    weight_W: Tensor,
    gate_RW: Tensor | None,
    *,
    eps: float,
    zero_centred: bool,
    rounded: bool,
) -> Tensor:
    """Return the normalized rows [R, W], times a weight, times SiLU of a gate if there is one.

    Args:
        input_RW: of two bytes a number, as the weight.
        weight_W: the weight, or what it is more than 1.
        gate_RW: of the same type.
        eps: added to the mean of the squares.
        zero_centred: whether the weight is what was given, plus 1.
        rounded: whether rows are rounded to their type before they are multiplied with the weight.
    """
    num_rows, width = input_RW.shape
    input_RW = input_RW.contiguous()
    gate = input_RW if gate_RW is None else gate_RW.contiguous()
    output_RW = torch.empty_like(input_RW)
    block = triton.next_power_of_2(width)
    rows = max(1, _TILE // block)
    with torch.cuda.device_of(input_RW):  # Triton starts kernels on the current GPU
        kernel[(triton.cdiv(num_rows, rows),)](
            input_RW,
            weight_W.contiguous(),
            gate,
            output_RW,
            num_rows,
            width,
            eps,
            ROWS=rows,
            BLOCK=block,
            ZERO_CENTRED=zero_centred,
            ROUNDED=rounded,
            GATED=gate_RW is not None,
            **OPTIONS,
        )
    return output_RW


@triton.jit
def kernel(
    input,  # noqa: A002
    weight,
    gate,
    output,
    num_rows,
    width,
    eps,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    ZERO_CENTRED: tl.constexpr,
    ROUNDED: tl.constexpr,
    GATED: tl.constexpr,
):
    """Normalize some rows."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    feature = tl.arange(0, BLOCK)
    where = row.to(tl.int64)[:, None] * width + feature[None, :]
    is_there = (row < num_rows)[:, None] & (feature < width)[None, :]
    x = tl.load(input + where, mask=is_there, other=0.0).to(tl.float32)
    w = tl.load(weight + feature, mask=feature < width, other=0.0).to(tl.float32)
    x = x * tl.rsqrt(tl.sum(x * x, axis=1) / width + eps)[:, None]
    if ZERO_CENTRED:
        w = w + 1.0
    if ROUNDED:
        x = x.to(output.dtype.element_ty).to(tl.float32)
    x = x * w[None, :]
    if ROUNDED:
        x = x.to(output.dtype.element_ty).to(tl.float32)
    if GATED:
        g = tl.load(gate + where, mask=is_there, other=0.0).to(tl.float32)
        x = x * (g * tl.sigmoid(g))
    tl.store(output + where, x.to(output.dtype.element_ty), mask=is_there)
