"""The tensors that each algorithm stores for one linear layer, in both layouts that engines load.

A layer has up to four parts, called by their role here: `weight`, `weight_scale`, `global_scale`
and `input_scale`. modelopt and compressed-tensors spell them differently and the second stores
the last two of NVFP4 as divisors, so the checks ask for roles and this file alone knows spellings.

Written down here a second time, apart from harness.formats, so that a mistake in the writer is
not repeated by its verifier. Shapes are those of the weight [out, in]: the function gets (out, in)
and returns what the tensor must have; a scalar is () or (1,).

Source: the tensors that nvidia-modelopt 0.47.0 and llmcompressor 0.14.0.1 write, and the
parameters that vLLM's loaders create for them (vllm/model_executor/layers/quantization/modelopt.py
and compressed_tensors/schemes/*.py).
"""

from collections.abc import Callable, Container, Mapping
from typing import NamedTuple

from harness.engines import COMPRESSED, MODELOPT, NATIVE_FP8, NATIVE_MXFP4
from harness.verify.modules import BLOCK_SCALES, BLOCKS

DIVISORS = frozenset({"weight_global_scale", "input_global_scale"})
"""Tensors that hold one divided by the scale."""
INPUT_SCALES = frozenset({"input_scale", "input_global_scale"})
UNMEASURED_DIVISOR = 1.0
"""What compressed-tensors writes as global scale where it saw nothing to measure."""

Shape = tuple[int, ...]
Shapes = Callable[[int, int], tuple[Shape, ...]]


class Stored(NamedTuple):
    """One tensor of a quantized linear layer."""

    leaf: str
    """The last part of its name."""
    dtypes: tuple[str, ...]
    shapes: Shapes
    """From (out, in) of the weight to every shape that is right."""
    others: tuple[str, ...] = ()
    """Other names of it, which are read as well."""


class Layout(NamedTuple):
    """What one algorithm stores."""

    tensors: Mapping[str, Stored]
    """By role."""
    packed: int
    """Weights in one stored item along the last axis."""
    block: int
    """The width must be a multiple of this."""
    packed_rows: int = 1
    """Weights in one stored item along the first axis."""

    def spelled_in(self, leaves: Container[str]) -> "Layout":
        """Return the layout with the names that a layer has for its tensors."""
        spelled = {
            role: stored._replace(leaf=next(filter(leaves.__contains__, stored.others)))
            for role, stored in self.tensors.items()
            if stored.leaf not in leaves and any(other in leaves for other in stored.others)
        }
        return self._replace(tensors={**self.tensors, **spelled}) if spelled else self

    def leaf(self, role: str) -> str | None:
        """Return the spelling of a part; None where the algorithm has no such part."""
        stored = self.tensors.get(role)
        return stored.leaf if stored else None


class Form(NamedTuple):
    """One way to read the axes of a stored weight: a matrix, or a stack of experts' matrices."""

    layout: Layout
    out: int
    width: int
    num_experts: int | None = None
    is_transposed: bool = False
    """Whether the stack's matrices are [in, out], as Llama 4 and gpt-oss multiply them."""

    def shapes(self, stored: Stored) -> tuple[Shape, ...]:
        """Return the shapes that a tensor of the layer may have."""
        shapes = stored.shapes(self.out, self.width)
        if self.num_experts is None:
            return shapes
        each = [(self.num_experts, *shape[:: -1 if self.is_transposed else 1]) for shape in shapes]
        if () in shapes:  # one for all of them, or one for each
            return (*shapes, *each, (self.num_experts, 1, 1))
        return tuple(each)


def forms_of(shape: Shape, layout: Layout, *, is_stack: bool) -> tuple[Form, ...]:
    """Return the ways to read a stored weight of this shape; none where it is no weight."""
    match shape:
        case (rows, columns):
            return (Form(layout, rows * layout.packed_rows, columns * layout.packed),)
        case _ if not is_stack:
            return ()
        case (experts, rows, columns):
            flat = Form(layout, rows * layout.packed_rows, columns * layout.packed, experts)
            out, width = columns * layout.packed_rows, rows * layout.packed
            return flat, flat._replace(out=out, width=width, is_transposed=True)
        case (experts, rows, blocks, num_bytes):
            return (Form(layout, rows, blocks * num_bytes * layout.packed, experts),)
        case _:
            return ()


def _scalar(_out: int, _in: int) -> tuple[Shape, ...]:
    return ((), (1,))


def _matrix(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width),)


def _halved(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 2),)


def _rows_halved(out: int, width: int) -> tuple[Shape, ...]:
    return ((out // 2, width),)


def _blocks_of_128(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 128),)


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


_ANY_FLOAT = ("F32", "BF16", "F16")
"""compressed-tensors keeps FP8 scales in the model's own type; engines widen them."""


def _nvfp4(weight: str, global_scale: str, input_scale: str | None) -> Layout:
    tensors = {
        "weight": Stored(weight, ("U8",), _halved),
        "weight_scale": Stored("weight_scale", ("F8_E4M3",), _blocks_of_16),
        "global_scale": Stored(global_scale, ("F32",), _scalar),
    }
    if input_scale is not None:
        tensors["input_scale"] = Stored(input_scale, ("F32",), _scalar)
    return Layout(tensors, packed=2, block=16)


def _eight_bits(scale: Stored, *, input_dtypes: tuple[str, ...] = (), block: int = 1) -> Layout:
    """Return the layout of FP8 weights; with no `input_dtypes` there is no input scale."""
    tensors = {"weight": Stored("weight", ("F8_E4M3",), _matrix), "weight_scale": scale}
    if input_dtypes:
        tensors["input_scale"] = Stored("input_scale", input_dtypes, _scalar)
    return Layout(tensors, packed=1, block=block)


def _scale(shapes: Shapes, dtypes: tuple[str, ...] = ("F32",)) -> Stored:
    return Stored("weight_scale", dtypes, shapes)


def _four_bits(scale: Stored, *more: tuple[str, Stored], rows: int = 1, block: int = 32) -> Layout:
    """Return the layout of other 4-bit weights: two in a byte, of one row or of two."""
    packed = _rows_halved if rows > 1 else _halved
    tensors = {"weight": Stored("weight", ("U8",), packed), "weight_scale": scale, **dict(more)}
    return Layout(tensors, packed=2 // rows, block=block, packed_rows=rows)


_OURS = ("weight", "weight_scale_2")
_THEIRS = ("weight_packed", "weight_global_scale")
_TENSOR, _CHANNEL = _scale(_scalar, _ANY_FLOAT), _scale(_rows, _ANY_FLOAT)


def _blocks(out: int, width: int) -> tuple[Shape, ...]:
    return ((out, width // 32, 16),)


BLOCKED_EXPERTS = Layout(
    {
        "weight": Stored(BLOCKS, ("U8",), _blocks),
        "weight_scale": Stored(BLOCK_SCALES, ("U8",), _blocks_of_32),
    },
    packed=2,
    block=32,
)
"""MXFP4 as OpenAI stores it for the experts of a layer: [expert, out, in / 32, 16]."""

LAYOUTS: Mapping[str, Mapping[str, Layout]] = {
    MODELOPT: {
        "NVFP4": _nvfp4(*_OURS, "input_scale"),
        "W4A16_NVFP4": _nvfp4(*_OURS, None),
        "FP8": _eight_bits(_scale(_scalar), input_dtypes=("F32",)),
        "FP8_PER_CHANNEL_PER_TOKEN": _eight_bits(_scale(_rows)),
        "FP8_PB_WO": _eight_bits(
            Stored("weight_scale", _ANY_FLOAT, _tiles, others=("weight_scale_inv",))
        ),
        "MXFP8": _eight_bits(_scale(_blocks_of_32, ("U8",)), block=32),
        "MXFP4": _four_bits(_scale(_blocks_of_32, ("U8",))),
        "W4A8_NVFP4_FP8": _four_bits(
            _scale(_blocks_of_32, ("F8_E4M3",)),
            ("global_scale", Stored("weight_scale_2", ("F32",), _scalar)),
            ("input_scale", Stored("input_scale", ("F32",), _scalar)),
        ),
        "W4A16_AWQ": _four_bits(_scale(_blocks_of_128), rows=2, block=128),
    },
    COMPRESSED: {
        "NVFP4": _nvfp4(*_THEIRS, "input_global_scale"),
        "W4A16_NVFP4": _nvfp4(*_THEIRS, None),
        "FP8": _eight_bits(_TENSOR, input_dtypes=_ANY_FLOAT),
        "FP8_PER_TENSOR_DYNAMIC": _eight_bits(_TENSOR),
        "W8A16_FP8": _eight_bits(_TENSOR),
        "FP8_PER_CHANNEL_PER_TENSOR": _eight_bits(_CHANNEL, input_dtypes=_ANY_FLOAT),
        "FP8_PER_CHANNEL_PER_TOKEN": _eight_bits(_CHANNEL),
        "W8A16_FP8_PER_CHANNEL": _eight_bits(_CHANNEL),
        "FP8_PER_BLOCK": _eight_bits(_scale(_tiles, _ANY_FLOAT)),
    },
    NATIVE_FP8: {
        "FP8": _eight_bits(_TENSOR, input_dtypes=_ANY_FLOAT),
        "FP8_PER_TENSOR_DYNAMIC": _eight_bits(_TENSOR),
        "FP8_PER_BLOCK": _eight_bits(
            Stored("weight_scale_inv", (*_ANY_FLOAT, "F8_E8M0"), _tiles, others=("scale",))
        ),
        "NVFP4": _nvfp4(*_OURS, "input_scale"),
        "MXFP4": Layout(
            {
                "weight": Stored("weight", ("I8", "U8"), _halved),
                "weight_scale": Stored(
                    "weight_scale", ("F8_E8M0", "U8"), _blocks_of_32, ("scale",)
                ),
            },
            packed=2,
            block=32,
        ),
    },
    NATIVE_MXFP4: {"MXFP4": BLOCKED_EXPERTS},
}
"""By the library that wrote the checkpoint, then by algorithm. `MIXED_PRECISION` names one of
these for each layer."""
