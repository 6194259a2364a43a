"""Scales that are powers of two, a byte each (E8M0): what the MX formats share.

A byte b means 2^(b - 127); 255 is no number. Source: OCP Microscaling formats, version 1.0;
nvidia-modelopt 0.47.0, torch/quantization/qtensor/mxfp8_tensor.py and mxfp4_tensor.py.

Shapes: E weights, O output features, I input features, B blocks of 32 input features.
"""

import torch
from torch import Tensor

BLOCK = 32
_BIAS = 127


def blocks(x: Tensor) -> Tensor:
    """Return [..., I] as [..., B, 32].

    Raises:
        ValueError: the width is no multiple of 32.
    """
    if x.shape[-1] % BLOCK:
        message = f"width {x.shape[-1]} is no multiple of {BLOCK}"
        raise ValueError(message)
    return x.reshape(*x.shape[:-1], -1, BLOCK)


def exponents(amax: Tensor, largest: float) -> Tensor:
    """Return the least powers of two that bring `amax` to `largest` at most, from -127 to 127.

    As the peer computes them: the logarithm is rounded to float32 before it is rounded up, so that
    a value just above a power of two may get that power, and is then clipped.
    """
    exponent = torch.log2(amax.float() / largest).ceil()  # of zero: minus infinity
    return exponent.clamp(-float(_BIAS), float(_BIAS))


def to_bytes(exponent: Tensor) -> Tensor:
    """Return exponents as they are stored."""
    return (exponent + _BIAS).to(torch.uint8)


def from_bytes(stored: Tensor) -> Tensor:
    """Return the powers of two that bytes mean, float32."""
    return torch.exp2(stored.float() - _BIAS)
