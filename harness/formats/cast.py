"""Weights of MXFP4 as NVFP4: the same codes under other scales, not a second rounding.

Both formats have E2M1 codes. A block of MXFP4 has a power of two, 2^k, for 32 values; of NVFP4 an
E4M3 scale for 16 times a global scale. With the global scale 2^(K - 8), where K is the largest k,
the scale 2^(k - K + 8) is an E4M3 number for all k >= K - 17, and every value stays what it was.
Blocks that are smaller still are rounded, by their own largest value.

Shapes: O output features, I input features, B blocks of 32 input features.
Source: nvidia-modelopt 0.47.0, torch/export/shard_cast_utils.py,
`quantize_mxfp4_to_nvfp4_lossless`, and torch/quantization/utils/numeric_utils.py.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.formats.e4m3 import E4M3_MAX, E4M3_TINY, to_e4m3
from harness.formats.nvfp4 import E2M1_MAX, packed_codes

_BIAS = 127
_HIGHEST, _LOWEST = 8, -9
"""E4M3 has every power of two in between."""
_SPLIT = 2
"""Blocks of NVFP4 in one of MXFP4."""


def largest_exponent(exponents_OB: Tensor) -> int:
    """Return the largest k of stored exponents, of which 0 belongs to blocks of zeros."""
    there = exponents_OB[exponents_OB > 0]
    return int(there.max()) - _BIAS if there.numel() else 0


def cast_to_nvfp4(weight_OI: Tensor, exponents_OB: Tensor, largest: int) -> Mapping[str, Tensor]:
    """Return `weight`, `weight_scale` and `weight_scale_2` of a weight that was stored in MXFP4.

    Args:
        weight_OI: as its codes mean.
        exponents_OB: k + 127, uint8.
        largest: k of the layers that share the global scale.
    """
    k_OB = exponents_OB.to(torch.int32) - _BIAS
    there = torch.where(exponents_OB > 0, k_OB, -_BIAS)
    above_OB = k_OB - (there.amax() - _HIGHEST)
    fits_OB = (above_OB >= _LOWEST) & (above_OB <= _HIGHEST)
    blocks = weight_OI.float().reshape(*k_OB.shape, -1)
    own_OB = torch.where(fits_OB, E2M1_MAX * torch.exp2(k_OB.float()), blocks.abs().amax(dim=-1))
    scale_2 = torch.tensor(2.0 ** (largest - _HIGHEST), device=weight_OI.device)
    scale_OB = (own_OB / (E2M1_MAX * scale_2)).clamp(E4M3_TINY, E4M3_MAX)
    stored_OB = to_e4m3(scale_OB).repeat_interleave(_SPLIT, dim=-1)
    packed_OI = packed_codes(weight_OI[None], stored_OB[None], scale_2.reshape(1))[0]
    return {"weight": packed_OI, "weight_scale": stored_OB, "weight_scale_2": scale_2}
