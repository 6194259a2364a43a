"""NVFP4: 4-bit floats in blocks of 16, an E4M3 scale a block, a float32 scale a tensor.

A stored weight is `code * weight_scale * weight_scale_2`: the code is one of +-{0, 0.5, 1, 1.5,
2, 3, 4, 6} (E2M1), `weight_scale` belongs to 16 neighbours of a row, `weight_scale_2` to the
whole matrix. Two codes lie in a byte, the even column in the low half.

The numbers are those of NVIDIA Model-Optimizer 0.47.0 to the bit, so that checkpoints may be
compared byte for byte. Block scales that are not those of a block's largest value are chosen in
`harness.algorithms`. Left out: padding of widths that are no multiple of 16.

Shapes: E weights, O output features, I input features, B blocks of 16 input features.
Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/nvfp4_tensor.py (weights);
vLLM 0.25.0 to 0.33.0, model_executor/layers/quantization/utils/nvfp4_emulation_utils.py (inputs).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, E4M3_TINY, scale_of, to_e4m3
from harness.formats.format import Format, check_amax, given
from harness.formats.on_gpu import brought, fused_kernel
from harness.formats.parts import row_parts

BLOCK = 16
E2M1_MAX = 6.0

_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
# The largest magnitude that still gets each code. Halfway values go to the even code, which for
# 0.75, 1.75 and 3.5 is the upper one: there the bound is the float32 just below.
_BOUNDS = (0.25, 0.75 - 2.0**-24, 1.25, 1.75 - 2.0**-23, 2.5, 3.5 - 2.0**-22, 5.0)
_SEARCHED = torch.tensor(_BOUNDS)
_SIGNED = torch.cat([_VALUES, -_VALUES])
_PAIRS = torch.stack([_SIGNED.repeat(16), _SIGNED.repeat_interleave(16)], dim=-1)
"""The two values of each byte, [256, 2]."""


class Nvfp4(Format):
    """4.5 bits a weight; inputs are rounded in blocks whose scales are made on the fly."""

    name = "nvfp4"
    block = BLOCK
    shares_group_scale = True
    one_scale = "weight_scale_2"
    is_widened_to_own_type = True
    has_input_scale = True

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` uint8 [E, O, I/2], `weight_scale` E4M3 [E, O, B], `weight_scale_2` [E].

        A block of zeros gets scale 1 and so does a group of zeros, where the peer divides zero
        by zero: such a weight stays exactly zero.
        """
        num_weights, num_rows, width = weight_EOI.shape
        check_width(width)
        ranges, scale_2_E = global_scales(amax)
        scale_2_E = brought(scale_2_E, weight_EOI.device)
        fused = fused_kernel(self.name, weight_EOI.device, ranges)
        if fused is not None:
            packed, scale_EOB = fused(weight_EOI, scale_2_E)
            return {"weight": packed, "weight_scale": scale_EOB, "weight_scale_2": scale_2_E}
        packed = weight_EOI.new_empty(num_weights, num_rows, width // 2, dtype=torch.uint8)
        shape = (num_weights, num_rows, width // BLOCK)
        scale_EOB = weight_EOI.new_empty(shape, dtype=torch.float8_e4m3fn)
        for part in row_parts(weight_EOI.shape, weight_EOI.device):
            where, scale_2 = (part.weights, part.rows), scale_2_E[part.weights]
            scale_EOB[where] = block_scales(weight_EOI[where], scale_2)
            packed[where] = packed_codes(weight_EOI[where], scale_EOB[where], scale_2)
        return {"weight": packed, "weight_scale": scale_EOB, "weight_scale_2": scale_2_E}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]: the scales are multiplied first, then the code, then comes the cast.

        Source: `dequantize_to_dtype` of vLLM's emulation.
        """
        values_OI = values_of(tensors["weight"])
        step_OB = tensors["weight_scale"].float() * tensors["weight_scale_2"].float()
        values = values_OI.reshape(*step_OB.shape, BLOCK) * step_OB.unsqueeze(-1)
        return values.to(dtype).reshape(values_OI.shape)

    def input_scale(self, amax: float) -> Tensor:
        """Return amax / (6 * 448); an input that was always zero counts as 6, as the peer has it.

        Source: `get_activation_scaling_factor` and `_sanitize_export_amax` of modelopt.
        """
        return scale_of(check_amax(amax) or E2M1_MAX, E2M1_MAX * E4M3_MAX)

    def qdq_input(self, x: Tensor, *, input_scale: Tensor | None) -> Tensor:
        """Round `x` as vLLM's emulation of W4A4 does.

        The engine works with the reciprocal of `input_scale`; the block scale is cast to E4M3
        without a lower clamp, so a block far below the calibrated range becomes zero.

        Source: `ref_nvfp4_quant_dequant` of vLLM's emulation, the path without Triton.
        """
        x_Bk = in_blocks(x)
        global_scale = 1.0 / given(input_scale).to(x.device, torch.float32)
        amax_B1 = x_Bk.abs().amax(dim=-1, keepdim=True).float()
        scale_B1 = to_e4m3(global_scale * (amax_B1 * (1 / E2M1_MAX))).float()
        inverse_B1 = _reciprocal(scale_B1 * _reciprocal(global_scale))
        scaled_Bk = x_Bk.float() * inverse_B1
        return (nearest(scaled_Bk) * (scale_B1 / global_scale)).to(x.dtype).reshape(x.shape)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes, block scales and the global scale."""
        num_rows, width = shape
        return {
            "weight": TensorType("U8", (num_rows, width // 2)),
            "weight_scale": TensorType("F8_E4M3", (num_rows, width // BLOCK)),
            "weight_scale_2": TensorType("F32", ()),
        }


def values_of(packed: Tensor) -> Tensor:
    """Return the values [..., I] of packed E2M1 codes [..., I/2], float32."""
    return _PAIRS.to(packed.device)[packed.int()].flatten(-2)


def check_width(width: int) -> None:
    """Refuse what cannot be cut into blocks.

    Raises:
        ValueError: it is no multiple of 16.
    """
    if width % BLOCK:
        message = f"width {width} is no multiple of {BLOCK}"
        raise ValueError(message)


def global_scales(amax: Sequence[float], *, top: float = E4M3_MAX) -> tuple[list[float], Tensor]:
    """Return largest values and the global scales [E] made of them, float32, on the CPU.

    Args:
        amax: zero for weights of nothing but zeros, which get scale 1.
        top: E4M3 scale of the block that holds the largest value.
    """
    largest = E2M1_MAX * top
    ranges = [check_amax(one) or largest for one in amax]
    return ranges, scale_of(ranges, largest)


def block_scales(weight_EOI: Tensor, scale_2_E: Tensor) -> Tensor:
    """Return the E4M3 scales [E, O, B] that map each block's largest value to 6."""
    largest_EOB = in_blocks(weight_EOI.float()).abs().amax(dim=-1)
    scale_EOB = largest_EOB / (E2M1_MAX * scale_2_E[:, None, None])
    return to_e4m3(torch.where(scale_EOB == 0, 1.0, scale_EOB).clamp(min=E4M3_TINY))


def stored(weight_EOI: Tensor, scale_EOB: Tensor, scale_2_E: Tensor) -> dict[str, Tensor]:
    """Return what is stored of weights whose scales are given, by suffix."""
    num_weights, num_rows, width = weight_EOI.shape
    packed = weight_EOI.new_empty(num_weights, num_rows, width // 2, dtype=torch.uint8)
    for part in row_parts(weight_EOI.shape, weight_EOI.device):
        where = part.weights, part.rows
        packed[where] = packed_codes(weight_EOI[where], scale_EOB[where], scale_2_E[part.weights])
    return {"weight": packed, "weight_scale": scale_EOB, "weight_scale_2": scale_2_E}


def nearest(x: Tensor) -> Tensor:
    """Return the E2M1 value nearest to each of `x`, float32."""
    return _VALUES.to(x.device)[_magnitude_codes(x).int()].copysign(x)


def nearest_by_search(x: Tensor) -> Tensor:
    """Return the same, for few values at a time: in 4 steps, not 20, each of which is slower."""
    bounds = _SEARCHED.to(x.device)
    return _VALUES.to(x.device)[torch.bucketize(x.abs(), bounds)].copysign(x)


def packed_codes(weight_EOI: Tensor, scale_EOB: Tensor, scale_2_E: Tensor) -> Tensor:
    """Return the codes [E, O, I/2] that are nearest for given scales."""
    weight_EOBk = in_blocks(weight_EOI.float())
    step_EOB1 = (scale_EOB.float() * scale_2_E[:, None, None]).unsqueeze(-1)
    # Steps vanish only below 1e-42, out of reach of bfloat16 weights; 0 / 0 must not get 6.
    scaled_EOBk = torch.where(step_EOB1 > 0, weight_EOBk / step_EOB1, 0.0)
    codes_EOI = _encode(scaled_EOBk).reshape(weight_EOI.shape)
    return codes_EOI[..., 0::2] | (codes_EOI[..., 1::2] << 4)


def in_blocks(x: Tensor) -> Tensor:
    """Return [..., B, 16] of [..., I]."""
    check_width(x.shape[-1])
    return x.reshape(*x.shape[:-1], -1, BLOCK)


def _encode(x: Tensor) -> Tensor:
    """Return E2M1 codes as uint8; the sign bit is set where x < 0, so -0.0 becomes code 0."""
    return _magnitude_codes(x) | ((x < 0).to(torch.uint8) << 3)


def _magnitude_codes(x: Tensor) -> Tensor:
    """Return how many bounds lie below each magnitude.

    Seven comparisons take a third of the time of a binary search a value (0.03 s against 0.09 s
    for 8 million on two cores).
    """
    magnitude = x.abs()
    codes = torch.zeros_like(magnitude, dtype=torch.uint8)
    for bound in _BOUNDS:
        codes += magnitude > bound
    return codes


def _reciprocal(x: Tensor) -> Tensor:
    """Return 1 / x, and 1e-8 for zero: how the engine keeps blocks of zeros finite."""
    return 1.0 / (x + (x == 0) * 1e8)


FORMAT = Nvfp4()
