"""Adds up x x^T or y x^T on a GPU, for all experts in one kernel, which knows their rows by itself.

Inputs of two bytes are multiplied by the matrix units, without rounding, and summed up in float32:
as exact as float32 is, some ten times as fast. Of x x^T only tiles up to the diagonal are computed,
and their sums are written to both sides.

Shapes: N rows (tokens), I input features, E experts, B blocks of k input features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

_TILE, _TOKENS = 128, 64
"""Features and tokens that are multiplied at a time."""
OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": False}


def add_products(sums: Tensor, ends_E: Tensor, input_NI: Tensor, left_NI: Tensor) -> None:
    """Add y x^T of each expert's rows to its sums [E, I, I] or [E, B, k, k], contiguous."""
    is_square = left_NI is input_NI
    if input_NI.stride(1) != 1:
        input_NI = input_NI.contiguous()
    if left_NI.stride(1) != 1:
        left_NI = left_NI.contiguous()
    size = sums.shape[-1]
    blocks, tile = input_NI.shape[1] // size, min(_TILE, triton.next_power_of_2(size))
    grid = (triton.cdiv(size, tile) ** 2, blocks, len(ends_E))
    rows = left_NI, left_NI.stride(0), input_NI, input_NI.stride(0)
    fixed = {"TOKENS": _TOKENS, "TILE": tile, "IS_SQUARE": is_square}
    with torch.cuda.device_of(input_NI):  # Triton starts kernels on the current GPU
        kernel[grid](*rows, ends_E, sums, size, **fixed, **OPTIONS)


@triton.jit
def kernel(
    y,
    y_N,
    x,
    x_N,
    ends,
    sums,
    size,
    TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    IS_SQUARE: tl.constexpr,
):
    """Add up one tile of one expert's sums; of x x^T the one that mirrors it too."""
    tiles = tl.cdiv(size, TILE)
    first, second = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    block, which = tl.program_id(1), tl.program_id(2)
    begin = tl.load(ends + which - 1, mask=which > 0, other=0).to(tl.int32)
    end = tl.load(ends + which).to(tl.int32)
    if ((second <= first) | (not IS_SQUARE)) & (begin < end):
        row = first * TILE + tl.arange(0, TILE)
        column = second * TILE + tl.arange(0, TILE)
        y += block * size
        x += block * size
        sum = tl.zeros((TILE, TILE), dtype=tl.float32)  # noqa: A001
        for at in range(begin, end, TOKENS):
            token = at + tl.arange(0, TOKENS)
            left_at = y + token.to(tl.int64)[:, None] * y_N + row[None, :]
            right_at = x + token.to(tl.int64)[:, None] * x_N + column[None, :]
            is_token = (token < end)[:, None]
            left = tl.load(left_at, mask=is_token & (row < size)[None, :], other=0.0)
            right = tl.load(right_at, mask=is_token & (column < size)[None, :], other=0.0)
            sum = tl.dot(tl.trans(left), right, sum)  # noqa: A001
        own = sums + (which * tl.num_programs(1) + block).to(tl.int64) * size * size
        where = own + row[:, None] * size + column[None, :]
        is_there = (row < size)[:, None] & (column < size)[None, :]
        tl.store(where, tl.load(where, mask=is_there) + sum, mask=is_there)
        if IS_SQUARE & (second < first):
            where = own + column[:, None] * size + row[None, :]
            is_there = (column < size)[:, None] & (row < size)[None, :]
            tl.store(where, tl.load(where, mask=is_there) + tl.trans(sum), mask=is_there)
