"""The tensors that each algorithm stores for one linear layer.

Written down here a second time, apart from harness.formats, so that a mistake in the writer is
not repeated by its verifier. Shapes are those of the weight [out, in]: the function gets (out, in)
and returns what the tensor must have; a scalar is () or (1,).

Source: the tensors that nvidia-modelopt 0.47.0 exports, and the parameters that vLLM's modelopt
loaders create for them (vllm/model_executor/layers/quantization/modelopt.py).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

Shape = tuple[int, ...]


class Stored(NamedTuple):
    """One tensor of a quantized linear layer."""

    dtype: str
    shapes: Callable[[int, int], tuple[Shape, ...]]
    """From (out, in) of the weight to every shape that is right."""


class Layout(NamedTuple):
    """What one algorithm stores."""

    tensors: Mapping[str, Stored]
    packed: int
    """Weights in one stored item along the last axis."""
    block: int
    """The width must be a multiple of this."""


def _scalar(_out: int, _in: int) -> tuple[Shape, ...]:
    return ((), (1,))


def _matrix(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width),)


def _halved(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 2),)


def _blocks_of_16(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 16),)


def _blocks_of_32(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 32),)


def _rows(out: int, _in: int) -> tuple[Shape, ...]:
    return ((out,), (out, 1))


def _tiles(out: int, width: int) -> tuple[Shape, ...]:
    rows, columns = -(-out // 128), -(-width // 128)
    tiles: tuple[Shape, ...] = ((rows, 1, columns, 1), (rows, columns))
    return (*tiles, ()) if rows == columns == 1 else tiles


_W4A16 = {
    "weight": Stored("U8", _halved),
    "weight_scale": Stored("F8_E4M3", _blocks_of_16),
    "weight_scale_2": Stored("F32", _scalar),
}
_FP8 = {"weight": Stored("F8_E4M3", _matrix), "weight_scale": Stored("F32", _scalar)}
_INPUT = {"input_scale": Stored("F32", _scalar)}

LAYOUTS: Mapping[str, Layout] = {
    "NVFP4": Layout(_W4A16 | _INPUT, packed=2, block=16),
    "W4A16_NVFP4": Layout(_W4A16, packed=2, block=16),
    "FP8": Layout(_FP8 | _INPUT, packed=1, block=1),
    "FP8_PER_CHANNEL_PER_TOKEN": Layout(
        {"weight": Stored("F8_E4M3", _matrix), "weight_scale": Stored("F32", _rows)},
        packed=1,
        block=1,
    ),
    "FP8_PB_WO": Layout(
        {"weight": Stored("F8_E4M3", _matrix), "weight_scale": Stored("F32", _tiles)},
        packed=1,
        block=1,
    ),
    "MXFP8": Layout(
        {"weight": Stored("F8_E4M3", _matrix), "weight_scale": Stored("U8", _blocks_of_32)},
        packed=1,
        block=32,
    ),
}
"""By `quant_algo`. `MIXED_PRECISION` names one of these for each layer."""
