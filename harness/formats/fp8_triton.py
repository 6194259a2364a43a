"""FP8 weights in one pass over the memory of a GPU: the same bits as `fp8`.

Shapes: E weights, O output features, I input features.
"""

import torch
import triton
from torch import Tensor
from triton import language as tl

from harness.formats.rounding_triton import divided, to_e4m3

_NUMEL, _WARPS = 4096, 4
"""Weights in one program, and its warps."""


def quantize(weight_EOI: Tensor, scale_E: Tensor) -> Tensor:
    """Return codes E4M3 [E, O, I].

    Args:
        weight_EOI: on a GPU; rows are contiguous, and follow each other within a weight.
        scale_E: float32, of weights whose largest value is at least SMALLEST and at most LARGEST.
    """
    num_weights, num_rows, width = weight_EOI.shape
    if weight_EOI.stride(2) != 1 or weight_EOI.stride(1) != width:
        weight_EOI = weight_EOI.contiguous()
    codes_EOI = weight_EOI.new_empty(weight_EOI.shape, dtype=torch.float8_e4m3fn)
    numel = num_rows * width
    grid = (triton.cdiv(numel, _NUMEL), num_weights)
    with torch.cuda.device_of(weight_EOI):  # Triton starts kernels on the current GPU
        arguments = weight_EOI, scale_E, codes_EOI.view(torch.uint8), weight_EOI.stride(0), numel
        _kernel[grid](*arguments, NUMEL=_NUMEL, num_warps=_WARPS)
    return codes_EOI


@triton.jit
def _kernel(weight, scales, codes, stride, numel, NUMEL: tl.constexpr):
    which = tl.program_id(1).to(tl.int64)
    where = tl.program_id(0) * NUMEL + tl.arange(0, NUMEL)
    is_there = where < numel
    x = tl.load(weight + which * stride + where, mask=is_there, other=0.0).to(tl.float32)
    scale = tl.load(scales + which)
    # Quotients that may lose their last bit, or their sign, are far below half of the least code.
    quotient = divided(x, scale, tl.math.div_rn(1.0, scale))
    code, _ = to_e4m3(tl.minimum(tl.abs(quotient), 448.0))
    sign = (x.to(tl.int32, bitcast=True) >> 24) & 128
    tl.store(codes + which * numel + where, code | sign.to(tl.uint8), mask=is_there)
