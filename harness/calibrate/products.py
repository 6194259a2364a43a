"""Adds up x x^T or y x^T over tokens, for each expert over its own.

Shapes: N rows (tokens), I input features, E experts, B blocks of k input features.
"""

import torch
from torch import Tensor

from harness.kernels import triton_module

_EXACT = {torch.bfloat16, torch.float16}
"""Types whose products are float32 numbers: a GPU's matrix units sum them up as they are."""


def add_products(
    sums: Tensor, ends_E: Tensor, input_NI: Tensor, left_NI: Tensor | None = None
) -> None:
    """Add x x^T of each expert's rows to its sums, or y x^T.

    Args:
        sums: [E, I, I], or [E, B, k, k] of each block alone; float32.
        ends_E: where each expert's rows end, one after another.
        input_NI: x, on the same device; a GPU that has Triton does not wait for `ends_E`.
        left_NI: y, of the same type; x where there is none.
    """
    left_NI = input_NI if left_NI is None else left_NI
    kernel = triton_module("harness.calibrate.products_triton", input_NI.device)
    if kernel is not None and input_NI.dtype in _EXACT:
        kernel.add_products(sums, ends_E, input_NI, left_NI)
        return
    begin = 0
    for own, end in zip(sums, ends_E.tolist(), strict=True):
        if end > begin:
            _add(own, left_NI[begin:end].float(), input_NI[begin:end].float())
        begin = end


def _add(own: Tensor, y_NI: Tensor, x_NI: Tensor) -> None:
    if own.dim() == 2:  # noqa: PLR2004  # I, I
        own.addmm_(y_NI.mT, x_NI)
    else:
        y_BNk, x_BNk = (
            one.reshape(len(one), -1, own.shape[-1]).transpose(0, 1) for one in (y_NI, x_NI)
        )
        own.baddbmm_(y_BNk.mT, x_BNk)
