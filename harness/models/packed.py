"""Models that their makers publish in MXFP4 alone, gpt-oss: a pair of tensors read as one.

`experts.gate_up_proj_blocks` (E, O, B, 16) holds two codes of E2M1 a byte, the even column in the
low half, and `experts.gate_up_proj_scales` (E, O, B) an exponent of two for 32 columns, plus 127.
transformers unpacks both into `experts.gate_up_proj` (E, I, O) in bfloat16, which holds every such
value exactly; so it is listed here, and there is nothing else that it could have been made from.

Shapes: E experts, O output features, I input features, B blocks of 32 input features.
Source: transformers, integrations/mxfp4.py, `convert_moe_packed_tensors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.artifacts import TensorHeader

BLOCK = 32
BLOCKS, SCALES = "_blocks", "_scales"
METHOD = "mxfp4"
_BIAS = 127
_BYTES = 16
_ITEM_BYTES = 2
_VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_SIGNED = torch.cat([_VALUES, -_VALUES])


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """The two tensors that hold one."""

    blocks: TensorHeader
    scales: TensorHeader


def packed_pairs(
    config: Mapping[str, object], tensors: Mapping[str, TensorHeader]
) -> Mapping[str, Packed]:
    """Return the pairs of tensors of a folder, by the name of what they hold.

    Empty unless config.json says that the model is stored so.
    """
    declared = config.get("quantization_config")
    if not isinstance(declared, Mapping) or declared.get("quant_method") != METHOD:
        return {}
    found: dict[str, Packed] = {}
    for name, blocks in tensors.items():
        whole = name.removesuffix(BLOCKS)
        scales = tensors.get(f"{whole}{SCALES}")
        if whole != name and scales is not None and _fit(blocks, scales):
            found[whole] = Packed(blocks=blocks, scales=scales)
    return found


def _fit(blocks: TensorHeader, scales: TensorHeader) -> bool:
    are_bytes = blocks.dtype == scales.dtype == "U8"
    return are_bytes and blocks.shape == (*scales.shape, _BYTES) and len(scales.shape) == 3  # noqa: PLR2004 -- experts, rows, blocks


def with_unpacked(
    tensors: Mapping[str, TensorHeader], packed: Mapping[str, Packed]
) -> dict[str, TensorHeader]:
    """Put one tensor of bfloat16 in place of each pair."""
    found: dict[str, TensorHeader] = {}
    for name, header in tensors.items():
        whole = name.removesuffix(BLOCKS).removesuffix(SCALES)
        found[whole if whole in packed else name] = (
            _unpacked(packed[whole]) if whole in packed else header
        )
    return found


def _unpacked(one: Packed) -> TensorHeader:
    num_experts, num_rows, num_blocks = one.scales.shape
    shape = (num_experts, num_blocks * BLOCK, num_rows)
    num_bytes = num_experts * num_rows * num_blocks * BLOCK * _ITEM_BYTES
    return TensorHeader(
        shard=one.blocks.shard,
        dtype="BF16",
        shape=shape,
        num_bytes=num_bytes,
        offset=one.blocks.offset,
    )


def unpack(blocks_OBk: Tensor, scales_OB: Tensor) -> Tensor:
    """Return the weight [I, O] that codes and exponents mean, in bfloat16."""
    codes = torch.stack([blocks_OBk & 15, blocks_OBk >> 4], dim=-1).flatten(-2).int()
    step_OB1 = torch.exp2(scales_OB.float() - _BIAS).unsqueeze(-1)
    return (_SIGNED[codes] * step_OB1).flatten(-2).to(torch.bfloat16).mT
