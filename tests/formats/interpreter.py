"""Triton's interpreter with a multiply-add that rounds once, as GPUs' does."""

from typing import Any

import numpy as np


def round_once() -> None:
    """Let the interpreter's multiply-add round once.

    The sum of the exact product is rounded to odd in float64, so that the second rounding is right.
    """
    from triton.runtime import interpreter  # noqa: PLC0415 - not everywhere

    def fused(_: object, x: Any, y: Any, z: Any) -> object:  # noqa: ANN401 - Triton's own type
        product, other = x.data.astype(np.float64) * y.data.astype(np.float64), z.data
        total = np.asarray(product + other.astype(np.float64))
        back = total - product
        error = (product - (total - back)) + (other - back)
        bits = total.view(np.int64)
        is_even = (error != 0) & (bits & 1 == 0)
        bits = np.where(is_even, bits + np.where((error > 0) == (total > 0), 1, -1), bits)
        data = bits.view(np.float64).astype(np.float32)
        return interpreter.TensorHandle(data, z.dtype.scalar)

    interpreter.InterpreterBuilder.create_fma = fused
