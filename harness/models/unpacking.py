"""The values of a pair of tensors that are read as one (`packed.py`).

Shapes: O output features, I input features, B blocks of 32 input features.
"""

import torch
from torch import Tensor

_BIAS = 127
_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_SIGNED = torch.cat([_VALUES, -_VALUES])


def of_mxfp4(blocks_OBk: Tensor, scales_OB: Tensor) -> Tensor:
    """Return what codes of E2M1 and exponents mean, in bfloat16 [I, O]."""
    codes = torch.stack([blocks_OBk & 15, blocks_OBk >> 4], dim=-1).flatten(-2).int()
    step_OB1 = torch.exp2(scales_OB.float() - _BIAS).unsqueeze(-1)
    return (_SIGNED[codes] * step_OB1).flatten(-2).to(torch.bfloat16).mT


def of_fp8(codes_OI: Tensor, scales: Tensor, block: tuple[int, int]) -> Tensor:
    """Return what codes of E4M3 and the factors of their blocks mean, in bfloat16 [O, I]."""
    num_rows, num_columns = codes_OI.shape
    steps = scales.float().repeat_interleave(block[0], dim=0)[:num_rows]
    steps_OI = steps.repeat_interleave(block[1], dim=1)[:, :num_columns]
    return (codes_OI.float() * steps_OI).to(torch.bfloat16)
