"""Scales of the least squared error of the weights: the FP8 scale sweep.

Source: nvidia-modelopt 0.47.0, torch/quantization/calib/mse.py, `NVFP4MSECalibrator`
(`nvfp4_w4a4_weight_mse_fp8_sweep`).
"""

from torch import Tensor

from harness.algorithms.sweep import best_scales, codes_around, squared


def choose(weight_EOI: Tensor, scale_EOB: Tensor, scale_2_E: Tensor) -> Tensor:
    """Return E4M3 scales [E, O, B]; `scale_EOB` are those of the blocks' largest values."""
    return best_scales(weight_EOI, scale_2_E, codes_around(scale_EOB), squared)
