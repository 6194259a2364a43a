"""NVFP4 weights in one pass over the memory of a GPU: the same bits as `nvfp4`.

Eager tensor functions read and write their temporaries some thirty times; here a block of 16 stays
in registers from its bfloat16 values to its packed codes.

Shapes: E weights, O output features, I input features, B blocks of 16 input features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

from harness.formats.rounding_triton import divided, power, to_e4m3

_BLOCKS, _WARPS = 256, 4
"""Blocks of 16 weights in one program, and its warps."""


def quantize(weight_EOI: Tensor, scale_2_E: Tensor) -> tuple[Tensor, Tensor]:
    """Return packed codes uint8 [E, O, I/2] and block scales E4M3 [E, O, B].

    Args:
        weight_EOI: on a GPU; rows are contiguous, and follow each other within a weight.
        scale_2_E: global scales, float32, of weights whose largest value is at least SMALLEST and
            at most LARGEST.
    """
    num_weights, num_rows, width = weight_EOI.shape
    if weight_EOI.stride(2) != 1 or weight_EOI.stride(1) != width:
        weight_EOI = weight_EOI.contiguous()
    blocks = num_rows * width // 16
    packed = weight_EOI.new_empty(num_weights, num_rows, width // 2, dtype=torch.uint8)
    scale_EOB = weight_EOI.new_empty(num_weights, num_rows, width // 16, dtype=torch.float8_e4m3fn)
    grid = (triton.cdiv(blocks, _BLOCKS), num_weights)
    codes = scale_EOB.view(torch.uint8)
    with torch.cuda.device_of(weight_EOI):  # Triton starts kernels on the current GPU
        arguments = weight_EOI, scale_2_E, packed, codes, weight_EOI.stride(0), blocks
        _kernel[grid](*arguments, BLOCKS=_BLOCKS, num_warps=_WARPS)
    return packed, scale_EOB


@triton.jit
def _to_e2m1(quotient):
    """Round to nearest even, at most 6; return codes in the lowest four bits.

    As for E4M3, where steps are half a number's power of two, 1 at least.
    """
    size = tl.minimum(tl.abs(quotient), 6.0)
    sum = tl.math.fma(power(size, 1.0), 4194307.0, size)  # noqa: A001
    bits = sum.to(tl.int32, bitcast=True)
    sign = quotient.to(tl.int32, bitcast=True) >> 28
    return ((bits + (bits >> 22)) & 7) | (sign & ~7)


@triton.jit
def _kernel(weight, scale_2, packed, scales, stride, num_blocks, BLOCKS: tl.constexpr):
    which = tl.program_id(1).to(tl.int64)
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    is_there = block < num_blocks
    column = tl.arange(0, 16)
    where = block[:, None] * 16 + column[None, :]
    x = tl.load(weight + which * stride + where, mask=is_there[:, None], other=0.0)
    x = x.to(tl.float32)
    global_scale = tl.load(scale_2 + which)
    largest = 6.0 * global_scale
    scale = divided(tl.max(tl.abs(x), axis=1), largest, tl.math.div_rn(1.0, largest))
    scale = tl.where(scale == 0.0, 1.0, scale)
    code_8, rounded = to_e4m3(tl.minimum(tl.maximum(scale, 0.001953125), 448.0))
    tl.store(scales + which * num_blocks + block, code_8, mask=is_there)
    step = rounded * global_scale
    inverse = tl.math.div_rn(1.0, step)
    quotient = divided(x, step[:, None], inverse[:, None])
    if weight.dtype.element_ty == tl.float32:
        quotient += 0.0  # -0.0, to which a quotient of a subnormal number may round, becomes 0.0
    code = _to_e2m1(quotient)
    low, high = tl.split(tl.reshape(code, (BLOCKS, 8, 2)))
    byte = ((low & 15) | (high << 4)).to(tl.uint8)
    pair = tl.arange(0, 8)
    into = (which * num_blocks + block)[:, None] * 8 + pair[None, :]
    tl.store(packed + into, byte, mask=is_there[:, None])
