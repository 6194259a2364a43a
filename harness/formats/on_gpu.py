"""What is shared of working on a GPU."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from harness.kernels import triton_module


def brought(x: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU's on `device`; a GPU gets it after all that it has yet to do.

    From memory that is not pinned the copy would wait until the GPU is done.
    """
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x


def fused_kernel(
    name: str, device: torch.device, ranges: Sequence[float]
) -> Callable[[Tensor, Tensor], Any] | None:
    """Return a format's way of quantizing in one pass, to the same bits.

    None where there is no GPU or no Triton, or where the largest value of a weight is as small or
    as large as no trained model has it.

    Args:
        name: of the format.
        device: where the weights are.
        ranges: largest value of each weight.
    """
    rounding = triton_module("harness.formats.rounding_triton", device)
    if rounding is None:
        return None
    kernel: Callable[[Tensor, Tensor], Any] = import_module(
        f"harness.formats.{name}_triton"
    ).quantize
    fits = all(rounding.SMALLEST <= one <= rounding.LARGEST for one in ranges)
    return kernel if fits else None
