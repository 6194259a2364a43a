"""NVFP4 weights in one pass over the memory of a GPU: the same bits as `nvfp4`.

Eager tensor functions read and write their temporaries some thirty times; here a block of 16 stays
in registers from its bfloat16 values to its packed codes.

Shapes: E weights, O output features, I input features, B blocks of 16 input features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

_BLOCKS = 256
"""Of 16 weights, in one program."""
SMALLEST = 2.0**-80
"""Largest value of a weight, below which steps come near the subnormal numbers: not for here."""


def quantize(weight_EOI: Tensor, scale_2_E: Tensor) -> tuple[Tensor, Tensor]:
    """Return packed codes uint8 [E, O, I/2] and block scales E4M3 [E, O, B].

    Args:
        weight_EOI: on a GPU; rows are contiguous, and follow each other within a weight.
        scale_2_E: global scales, float32, of weights whose largest value is at least SMALLEST.
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
        _kernel[grid](
            weight_EOI, scale_2_E, packed, codes, weight_EOI.stride(0), blocks, BLOCKS=_BLOCKS
        )
    return packed, scale_EOB


@triton.jit
def _to_e4m3(x):
    """Round values from 2^-9 to 448 to nearest even; return the code and its value.

    Written out, because a cast is not rounded the same by every version and by the interpreter.
    """
    bits = x.to(tl.int32, bitcast=True)
    normal = (bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20
    value = (normal << 20).to(tl.float32, bitcast=True)
    # Below 2^-6 steps are 2^-9: adding 1.5 * 2^23 rounds to an integer, ties to even.
    steps = (x * 512.0 + 12582912.0) - 12582912.0
    is_small = x < 0.015625
    code = tl.where(is_small, steps.to(tl.int32), normal - (120 << 3))
    return code.to(tl.uint8), tl.where(is_small, steps * 0.001953125, value)


@triton.jit
def _to_e2m1(x, step_B, BLOCKS: tl.constexpr):
    """Divide values [B, 16] by the step of their block and round to nearest even; return codes.

    One division a block instead of sixteen: the quotient by the reciprocal is put right with its
    exact remainder, which gives the correctly rounded one (Markstein 1990).
    """
    step = tl.broadcast_to(step_B[:, None], (BLOCKS, 16))
    inverse = tl.broadcast_to(tl.math.div_rn(1.0, step_B)[:, None], (BLOCKS, 16))
    quotient = x * inverse
    quotient = tl.math.fma(tl.math.fma(-quotient, step, x), inverse, quotient)
    size = tl.minimum(tl.abs(quotient), 6.0)
    bits = size.to(tl.int32, bitcast=True)
    # From 1 on a code is the exponent and one bit of the mantissa.
    large = ((bits + 0x1FFFFF + ((bits >> 22) & 1)) >> 22) - 252
    # Below 1 steps are 0.5: adding 1.5 * 2^23 rounds twice the size to an integer, ties to even.
    small = (size * 2.0 + 12582912.0).to(tl.int32, bitcast=True) & 7
    return tl.where(size < 1.0, small, large) + tl.where(quotient < 0.0, 8, 0)


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
    scale = tl.math.div_rn(tl.max(tl.abs(x), axis=1), 6.0 * global_scale)
    scale = tl.where(scale == 0.0, 1.0, scale)
    scale = tl.minimum(tl.maximum(scale, 0.001953125), 448.0)
    code_8, rounded = _to_e4m3(scale)
    tl.store(scales + which * num_blocks + block, code_8, mask=is_there)
    code = _to_e2m1(x, rounded * global_scale, BLOCKS)
    low, high = tl.split(tl.reshape(code, (BLOCKS, 8, 2)))
    byte = (low + high * 16).to(tl.uint8)
    pair = tl.arange(0, 8)
    into = (which * num_blocks + block)[:, None] * 8 + pair[None, :]
    tl.store(packed + into, byte, mask=is_there[:, None])
