"""Adds up x x^T on a GPU, for all experts in one kernel that need not wait to know their rows.

Inputs of two bytes are multiplied by the matrix units, without rounding, and summed up in float32:
as exact as float32 is, some ten times as fast. Only tiles up to the diagonal are computed, and
their sums are written to both sides.

Shapes: N rows (tokens), I input features, E experts, B blocks of k input features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

_TILE, _TOKENS = 128, 64
"""Features and tokens that are multiplied at a time."""
OPTIONS = {"num_warps": 8, "num_stages": 3, "enable_fp_fusion": False}


def add_products(sums: Tensor, ends_E: Tensor, input_NI: Tensor) -> None:
    """Add x x^T of each expert's rows to its sums [E, I, I] or [E, B, k, k], contiguous."""
    if input_NI.stride(1) != 1:
        input_NI = input_NI.contiguous()
    size = sums.shape[-1]
    blocks, tile = input_NI.shape[1] // size, min(_TILE, triton.next_power_of_2(size))
    tiles = triton.cdiv(size, tile)
    grid = (tiles * tiles, blocks, len(ends_E))
    given = input_NI, ends_E, sums, input_NI.stride(0), size, tiles
    with torch.cuda.device_of(input_NI):  # Triton starts kernels on the current GPU
        kernel[grid](*given, TOKENS=_TOKENS, TILE=tile, **OPTIONS)


@triton.jit
def kernel(x, ends, sums, x_N, size, tiles, TOKENS: tl.constexpr, TILE: tl.constexpr):
    """Add up one tile of one expert's sums, and the one that mirrors it."""
    first, second = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    block, which = tl.program_id(1), tl.program_id(2)
    begin = tl.load(ends + which - 1, mask=which > 0, other=0).to(tl.int32)
    end = tl.load(ends + which).to(tl.int32)
    if (second <= first) & (begin < end):
        row = first * TILE + tl.arange(0, TILE)
        column = second * TILE + tl.arange(0, TILE)
        x += block * size
        sum = tl.zeros((TILE, TILE), dtype=tl.float32)  # noqa: A001
        for at in range(begin, end, TOKENS):
            token = at + tl.arange(0, TOKENS)
            line = x + token.to(tl.int64)[:, None] * x_N
            is_token = (token < end)[:, None]
            left = tl.load(line + row[None, :], mask=is_token & (row < size)[None, :], other=0.0)
            right = tl.load(
                line + column[None, :], mask=is_token & (column < size)[None, :], other=0.0
            )
            sum = tl.dot(tl.trans(left), right, sum)  # noqa: A001
        own = sums + (which * tl.num_programs(1) + block).to(tl.int64) * size * size
        where = own + row[:, None] * size + column[None, :]
        is_there = (row < size)[:, None] & (column < size)[None, :]
        tl.store(where, tl.load(where, mask=is_there) + sum, mask=is_there)
        if second < first:
            where = own + column[:, None] * size + row[None, :]
            is_there = (column < size)[:, None] & (row < size)[None, :]
            tl.store(where, tl.load(where, mask=is_there) + tl.trans(sum), mask=is_there)
