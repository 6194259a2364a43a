"""Shapes of the files' tensors as the running model has them, of a packed checkpoint too."""

from collections.abc import Mapping, Sequence

from harness.artifacts import TensorHeader
from harness.models.conversion import Shape

_SCALES = (
    "weight_scale",
    "weight_scale_inv",
    "weight_scale_2",
    "input_scale",
    "k_scale",
    "v_scale",
)


def scale_names(tensors: Mapping[str, TensorHeader]) -> Sequence[str]:
    """Return the tensors that say how a weight beside them is stored."""
    suffixes = tuple(f".{scale}" for scale in _SCALES)
    return [
        name
        for name in tensors
        if name.endswith(suffixes) and f"{name.rpartition('.')[0]}.weight" in tensors
    ]


def plain_shapes(tensors: Mapping[str, TensorHeader], scales: Sequence[str]) -> Mapping[str, Shape]:
    """Return the shapes of all tensors but scales, as they are before two codes share a byte."""
    beside = frozenset(scales)
    shapes: dict[str, Shape] = {}
    for name, header in tensors.items():
        if name in beside:
            continue
        shape = header.shape
        is_packed = header.dtype == "U8" and f"{name}_scale" in beside
        shapes[name] = (*shape[:-1], 2 * shape[-1]) if is_packed else shape
    return shapes
