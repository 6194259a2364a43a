"""Four over six: a block's largest value becomes 6, or 4 where that loses less.

Between 4 and 6 E2M1 has no number; a block whose values lie there is better off with steps half as
large again. Block scales of up to 1.5 times need room, so the global scale maps the largest value
to 6 x 256 instead of 6 x 448.

Source: Cook et al., "Four Over Six", arXiv 2512.02010; nvidia-modelopt 0.47.0,
`nvfp4_four_over_six` (`mse` with the multipliers 1 and 1.5, `fp8_max_for_normalization`).
"""

from torch import Tensor

from harness.algorithms.sweep import best_scales, squared
from harness.formats.e4m3 import E4M3_TINY, to_e4m3
from harness.formats.nvfp4 import E2M1_MAX, in_blocks

TOP = 256.0
"""The E4M3 scale of the largest block, where 6 stands for its largest value."""


def choose(weight_EOI: Tensor, largest_E: Tensor, scale_2_E: Tensor) -> Tensor:
    """Return E4M3 scales [E, O, B]; `largest_E` is what `scale_2_E` was made of."""
    amax_EOB = in_blocks(weight_EOI.float()).abs().amax(-1)
    highest_E11 = (largest_E / E2M1_MAX)[:, None, None]

    def stored(times: float) -> Tensor:
        return to_e4m3((amax_EOB * times / E2M1_MAX * TOP / highest_E11).clamp(min=E4M3_TINY))

    return best_scales(weight_EOI, scale_2_E, (stored(1.0), stored(1.5)), squared)
