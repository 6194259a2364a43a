"""What the linear kernels that vLLM's CPU build lacks share.

Each kernel dequantizes its weight once, after vLLM has loaded it and merged its scales, and keeps
it in float32: float32 holds the values of every format exactly, and a product of two rounded
operands summed in float32 is what the GPU computes. Only the inputs are rounded on each call.
"""

import torch
from torch import Tensor

WEIGHT = "harness_weight_OI"
"""The buffer of a layer that holds its dequantized weight, [outputs, inputs]."""


def product(
    x: Tensor,
    weight_OI: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None,
    scale: Tensor | None = None,
) -> Tensor:
    """Return (x W^T) scale + bias, summed in float32, rounded once to `dtype`."""
    total = torch.nn.functional.linear(x.float(), weight_OI)
    if scale is not None:
        total = total * scale
    if bias is not None:
        total = total + bias.float()
    return total.to(dtype)
