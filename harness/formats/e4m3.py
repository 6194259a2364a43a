"""The 8-bit float E4M3: the element type of fp8, and the type of nvfp4's block scales.

One sign bit, 4 of exponent, 3 of mantissa; the largest value is 448, there is no infinity and
one NaN. Source: Micikevicius et al., "FP8 Formats for Deep Learning", arXiv 2209.05433.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

E4M3_MAX = 448.0
E4M3_TINY = 2.0**-9
"""Smallest positive value, a denormal."""


def to_e4m3(x: Tensor) -> Tensor:
    """Round to nearest even; what lies beyond the largest value becomes the largest value.

    The clamp is needed: torch's own cast turns values from 480 on into NaN.
    """
    return x.float().clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def scale_of(amax: float | Sequence[float], largest: float) -> Tensor:
    """Return amax / largest, rounded once to float32: the scale that maps `amax` to `largest`.

    An amax so small that the quotient vanishes gets the smallest positive float32. Of several
    values the scales are returned in one tensor.
    """
    return (torch.tensor(amax, dtype=torch.float32) / largest).clamp(min=2.0**-149)
