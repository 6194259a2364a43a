"""FP8 in blocks: E4M3 weights with a float32 scale for each 128 x 128 (FP8_PB_WO).

Codes are rounded once, from the float32 quotient, and scales are those of NVIDIA Model-Optimizer
0.47.0. A weight that is one block has the scale of its group, as there; the peer stores that one
without dimensions, which no engine loads, so here it has them.

Engines load routed experts with the names and the shape that DeepSeek's files have (`fp8_block_
experts`): the peer writes them as all other layers, and then no engine finds their scales.

Shapes: E weights, O output features, I input features, R and C blocks of 128 of either.
Source: nvidia-modelopt 0.47.0, torch/quantization/qtensor/fp8_tensor.py; vLLM 0.32.0,
model_executor/layers/quantization/modelopt.py, `KFp8Block128`, and fp8.py, `Fp8MoEMethod`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.artifacts import TensorType
from harness.formats.e4m3 import E4M3_MAX, to_e4m3
from harness.formats.format import Format, check_amax
from harness.formats.parts import row_parts

BLOCK = 128


class Fp8Block(Format):
    """8 bits a weight, any width; for weights alone."""

    name = "fp8_block"
    block = None
    shares_group_scale = True
    served_multiple = BLOCK
    for_experts: ClassVar[str | None] = "fp8_block_experts"
    scale = "weight_scale"

    def quantize_weights(self, weight_EOI: Tensor, *, amax: Sequence[float]) -> dict[str, Tensor]:
        """Return `weight` E4M3 [E, O, I] and its scale [E, R, 1, C, 1].

        A block of zeros gets scale 1.

        Args:
            weight_EOI: as `Format`.
            amax: used where a weight is one block.
        """
        num_weights, num_rows, width = weight_EOI.shape
        shape = num_weights, -(-num_rows // BLOCK), -(-width // BLOCK)
        codes_EOI = torch.empty_like(weight_EOI, dtype=torch.float8_e4m3fn)
        scale_ERC = weight_EOI.new_empty(shape, dtype=torch.float32)
        ranges = torch.tensor([check_amax(one) for one in amax]).to(weight_EOI.device)
        is_one = shape[1:] == (1, 1)
        for part in row_parts(weight_EOI.shape, weight_EOI.device, multiple=BLOCK):
            first, last = part.rows.start // BLOCK, -(-part.rows.stop // BLOCK)
            own = ranges[part.weights] if is_one else None
            codes, scale = _quantize(weight_EOI[part.weights, part.rows], own)
            codes_EOI[part.weights, part.rows] = codes
            scale_ERC[part.weights, first:last] = scale
        return {"weight": codes_EOI, self.scale: self._shaped(scale_ERC)}

    def dequantize_weight(self, tensors: Mapping[str, Tensor], *, dtype: torch.dtype) -> Tensor:
        """Return [O, I]."""
        codes = tensors["weight"]
        num_rows, width = codes.shape
        scale_RC = tensors[self.scale].float().reshape(-(-num_rows // BLOCK), -(-width // BLOCK))
        return (codes.float() * _spread(scale_RC)[:num_rows, :width]).to(dtype)

    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return codes and a scale a block."""
        rows, columns = (-(-length // BLOCK) for length in shape)
        stored = tuple(self._shaped(torch.empty(1, rows, columns, device="meta")).shape[1:])
        return {"weight": TensorType("F8_E4M3", shape), self.scale: TensorType("F32", stored)}

    def _shaped(self, scale_ERC: Tensor) -> Tensor:
        return scale_ERC[:, :, None, :, None]


def _quantize(weight_EOI: Tensor, amax_E: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return codes [E, O, I] and scales [E, R, C], from the blocks' own range or the given one."""
    num_rows, width = weight_EOI.shape[1:]
    padded = pad(weight_EOI.float(), (0, -width % BLOCK, 0, -num_rows % BLOCK))
    count, rows, columns = padded.shape
    blocks = padded.reshape(count, rows // BLOCK, BLOCK, columns // BLOCK, BLOCK)
    amax_ERC = blocks.abs().amax(dim=(2, 4))
    if amax_E is not None:
        amax_ERC = amax_E[:, None, None].expand_as(amax_ERC)
    scale_ERC = torch.where(amax_ERC > 0, amax_ERC / E4M3_MAX, 1.0)
    codes = to_e4m3(padded / _spread(scale_ERC))
    return codes[:, :num_rows, :width], scale_ERC


def _spread(scale: Tensor) -> Tensor:
    """Return each of [..., R, C] over its block."""
    return scale.repeat_interleave(BLOCK, dim=-2).repeat_interleave(BLOCK, dim=-1)


FORMAT = Fp8Block()
