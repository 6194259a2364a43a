"""Rounding of inputs to NVFP4 and FP8, as vLLM's kernels do it.

Shape suffixes: T tokens, I inputs, B blocks of 16 along I, k place in a block.

Everything is elementwise torch in float32 and equals vLLM's torch functions to the bit; they are
not called because eight masked assignments an input are slow. The Triton kernel of a GPU writes
the block's multiplier as one division, which the GPU itself rounds freely: now and then a tie goes
the other way there.
"""

import torch
from torch import Tensor

E4M3_MAX = 448.0
E2M1_MAX = 6.0
BLOCK = 16


def qdq_nvfp4(x_TI: Tensor, inverse_scale: Tensor) -> Tensor:
    """Round inputs to NVFP4 and back.

    Args:
        x_TI: Inputs; I is a multiple of 16.
        inverse_scale: float32 scalar, 1 / `input_scale` of the checkpoint.

    Returns:
        [T, I] in the type of `x_TI`.

    Source: `ref_nvfp4_quant_dequant` of vLLM, quantization/utils/nvfp4_emulation_utils.py.
    """
    x_TBk = x_TI.float().reshape(*x_TI.shape[:-1], -1, BLOCK)
    amax_TB1 = x_TBk.abs().amax(dim=-1, keepdim=True)
    scale_TB1 = (inverse_scale * (amax_TB1 * (1 / E2M1_MAX))).clamp(-E4M3_MAX, E4M3_MAX)
    scale_TB1 = scale_TB1.to(torch.float8_e4m3fn).float()
    multiplier_TB1 = _reciprocal(scale_TB1 * _reciprocal(inverse_scale))
    rounded_TBk = round_e2m1((x_TBk * multiplier_TB1).clamp(-E2M1_MAX, E2M1_MAX))
    return (rounded_TBk * (scale_TB1 / inverse_scale)).reshape(x_TI.shape).to(x_TI.dtype)


def _reciprocal(x: Tensor) -> Tensor:
    """Return 1 / x, and 1e-8 for zero, which keeps blocks of zeros finite."""
    return 1.0 / (x + (x == 0) * 1e8)


def round_e2m1(x: Tensor) -> Tensor:
    """Round values of [-6, 6] to the nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6; ties go to even.

    The distance of neighbours is 0.5 below 2, 1 below 4, and 2 above.
    """
    magnitude = x.abs()
    step = torch.where(magnitude < 2, 0.5, torch.where(magnitude < 4, 1.0, 2.0))  # noqa: PLR2004 -- see the docstring
    return torch.round(x / step) * step


def quantize_fp8(x: Tensor, scale: Tensor) -> Tensor:
    """Return E4M3 codes of x / scale; like the kernels, by a product with the reciprocal.

    Source: `scaled_fp8_conversion` of vLLM, csrc/quantization/w8a8/fp8/common.cuh, as called by
    `static_scaled_fp8_quant`.
    """
    scaled = x.float() * scale.float().reciprocal()
    return scaled.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
