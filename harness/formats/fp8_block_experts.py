"""FP8 in blocks as engines load it of routed experts: `weight_scale_inv`, a matrix of scales.

The numbers are those of `fp8_block`. The name is DeepSeek's; it is a factor all the same.
"""

from torch import Tensor

from harness.formats.fp8_block import Fp8Block


class Fp8BlockExperts(Fp8Block):
    """8 bits a weight."""

    name = "fp8_block_experts"
    for_experts = None
    scale = "weight_scale_inv"

    def _shaped(self, scale_ERC: Tensor) -> Tensor:
        return scale_ERC


FORMAT = Fp8BlockExperts()
