"""Scales of the least error of a layer's output, each block of inputs by itself.

An error counts as much as the inputs make of it: by the second moments of its block's 16 inputs.

Source: nvidia-modelopt 0.47.0, torch/quantization/model_calib.py, `local_hessian_calibrate`
(`nvfp4_w4a4_weight_local_hessian`).
"""

from torch import Tensor

from harness.algorithms.sweep import best_scales, codes_around


def choose(weight_EOI: Tensor, scale_EOB: Tensor, scale_2_E: Tensor, moment_EBkk: Tensor) -> Tensor:
    """Return E4M3 scales [E, O, B].

    Args:
        weight_EOI: of any floating type.
        scale_EOB: scales of the blocks' largest values.
        scale_2_E: global scales.
        moment_EBkk: second moments of each block's inputs (`SecondMoments.blocks`).
    """

    def counted(delta_EBOk: Tensor) -> Tensor:
        return ((delta_EBOk @ moment_EBkk) * delta_EBOk).sum(-1)

    return best_scales(weight_EOI, scale_2_E, codes_around(scale_EOB), counted)
