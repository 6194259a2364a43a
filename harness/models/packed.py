"""Models that their makers publish in 4 or 8 bits alone: a pair of tensors read as one.

gpt-oss in MXFP4: `experts.gate_up_proj_blocks` (E, O, B, 16) holds two codes of E2M1 a byte, the
even column in the low half, and `experts.gate_up_proj_scales` (E, O, B) an exponent of two for 32
columns, plus 127. transformers unpacks both into `experts.gate_up_proj` (E, I, O).

DeepSeek and others in FP8: `weight` (O, I) holds E4M3, and `weight_scale_inv` a factor for each
block of rows and columns, whose size config.json states.

Both are listed as the bfloat16 tensor that they mean; there is nothing else that it could have been
made from.

Shapes: E experts, O output features, I input features, B blocks of 32 input features.
Source: transformers, integrations/mxfp4.py, `convert_moe_packed_tensors`, and
integrations/finegrained_fp8.py, `Fp8Dequantize`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from harness.artifacts import TensorHeader

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 32
MXFP4, FP8 = "mxfp4", "fp8"
_BLOCKS, _SCALES, _INVERSE = "_blocks", "_scales", "_scale_inv"
_BYTES = 16
_ITEM_BYTES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """The two tensors that hold one."""

    codes_name: str
    codes: TensorHeader
    scales_name: str
    scales: TensorHeader
    block: tuple[int, int] | None = None
    """Rows and columns that share a factor in FP8; None for MXFP4."""

    @property
    def num_experts(self) -> int | None:
        """Return how many matrices it is a stack of; None for one matrix."""
        return self.codes.shape[0] if self.block is None else None

    def header(self) -> TensorHeader:
        """Return the header of what is meant."""
        shape = self.codes.shape
        if self.block is None:
            num_experts, num_rows, num_blocks = self.scales.shape
            shape = (num_experts, num_blocks * BLOCK, num_rows)
        return TensorHeader(
            shard=self.codes.shard,
            dtype="BF16",
            shape=shape,
            num_bytes=math.prod(shape) * _ITEM_BYTES,
            offset=self.codes.offset,
        )

    def unpack(self, codes: "Tensor", scales: "Tensor") -> "Tensor":
        """Return the matrix that codes and scales mean, in bfloat16: of one expert [I, O]."""
        from harness.models.unpacking import of_fp8, of_mxfp4  # noqa: PLC0415 - torch takes seconds

        return of_mxfp4(codes, scales) if self.block is None else of_fp8(codes, scales, self.block)


def packed_pairs(
    config: Mapping[str, object], tensors: Mapping[str, TensorHeader]
) -> Mapping[str, Packed]:
    """Return the pairs of tensors of a folder, by the name of what they hold.

    Empty unless config.json says that the model is stored so.
    """
    declared = config.get("quantization_config")
    if not isinstance(declared, Mapping):
        return {}
    if declared.get("quant_method") == MXFP4:
        return dict(_mxfp4_pairs(tensors))
    block = declared.get("weight_block_size")
    if declared.get("quant_method") == FP8 and _is_size(block):
        return dict(_fp8_pairs(tensors, (block[0], block[1])))
    return {}


def with_unpacked(
    tensors: Mapping[str, TensorHeader], packed: Mapping[str, Packed]
) -> dict[str, TensorHeader]:
    """Put one tensor of bfloat16 in place of each pair."""
    wholes = {one.codes_name: name for name, one in packed.items()}
    scales = {one.scales_name for one in packed.values()}
    return {
        wholes.get(name, name): packed[wholes[name]].header() if name in wholes else header
        for name, header in tensors.items()
        if name not in scales
    }


def _is_size(block: object) -> TypeGuard[list[int]]:
    if not isinstance(block, list) or len(block) != 2:  # noqa: PLR2004 -- rows and columns
        return False
    return all(type(size) is int and size > 0 for size in block)


def _mxfp4_pairs(tensors: Mapping[str, TensorHeader]) -> Iterator[tuple[str, Packed]]:
    for name, codes in tensors.items():
        whole = name.removesuffix(_BLOCKS)
        scales = tensors.get(f"{whole}{_SCALES}")
        if whole != name and scales is not None and _fit(codes, scales):
            yield (
                whole,
                Packed(
                    codes_name=name, codes=codes, scales_name=f"{whole}{_SCALES}", scales=scales
                ),
            )


def _fit(blocks: TensorHeader, scales: TensorHeader) -> bool:
    are_bytes = blocks.dtype == scales.dtype == "U8"
    return are_bytes and blocks.shape == (*scales.shape, _BYTES) and len(scales.shape) == 3  # noqa: PLR2004 -- experts, rows, blocks


def _fp8_pairs(
    tensors: Mapping[str, TensorHeader], block: tuple[int, int]
) -> Iterator[tuple[str, Packed]]:
    for name, codes in tensors.items():
        scales = tensors.get(f"{name}{_INVERSE}")
        if scales is None or codes.dtype != "F8_E4M3" or scales.dtype not in {"F32", "BF16"}:
            continue
        wanted = tuple(-(-size // each) for size, each in zip(codes.shape, block, strict=False))
        if len(codes.shape) == len(block) and scales.shape == wanted:
            scales_name = f"{name}{_INVERSE}"
            one = Packed(
                codes_name=name, codes=codes, scales_name=scales_name, scales=scales, block=block
            )
            yield name, one
