"""How layers may be quantized: one name for each arithmetic, whoever's files spell it.

The names are modelopt's where it has one. Each stands for what weights and inputs are rounded to;
how tensors are stored differs with the library that wrote them (its layout).

Source: vLLM 0.25.0 to 0.33.0, quantization/modelopt.py (`QUANT_ALGOS`), fp8.py,
compressed_tensors/compressed_tensors.py; nvidia-modelopt 0.47.0, torch/export/quant_utils.py.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

MODELOPT, COMPRESSED = "modelopt", "compressed-tensors"
NATIVE_FP8, NATIVE_MXFP4 = "fp8", "mxfp4"
"""Layouts: whose spelling of tensors and declarations it is."""


class Algorithm(NamedTuple):
    """The arithmetic of a layer."""

    weights: str
    """What weights are stored as, such as `nvfp4`."""
    inputs: str | None
    """What inputs are rounded to; None where they are not."""
    group_size: int | None = None
    """Weights of a row that share a scale, where the format fixes it."""


_FP8 = Algorithm("fp8", "fp8")
_FP8_WEIGHTS = Algorithm("fp8", None)
ALGORITHMS: Mapping[str, Algorithm] = {
    "NVFP4": Algorithm("nvfp4", "nvfp4", 16),
    "W4A16_NVFP4": Algorithm("nvfp4", None, 16),
    "W4A8_NVFP4_FP8": Algorithm("nvfp4", "fp8", 32),
    "FP8": _FP8,
    "FP8_PB_WO": _FP8_WEIGHTS,
    "FP8_PER_BLOCK": _FP8,
    "FP8_PER_CHANNEL_PER_TENSOR": _FP8,
    "FP8_PER_CHANNEL_PER_TOKEN": _FP8,
    "FP8_PER_TENSOR_DYNAMIC": _FP8,
    "W8A16_FP8": _FP8_WEIGHTS,
    "W8A16_FP8_PER_CHANNEL": _FP8_WEIGHTS,
    "MXFP8": Algorithm("mxfp8", "mxfp8", 32),
    "MXFP4": Algorithm("mxfp4", None, 32),
    "W4A16_AWQ": Algorithm("int4", None, 128),
}
_OTHER_NAMES = {"FP8_BLOCK_SCALES": "FP8_PB_WO"}

_FP8_BY_GROUPS = frozenset(
    {
        "FP8",
        "FP8_PER_BLOCK",
        "FP8_PER_CHANNEL_PER_TENSOR",
        "FP8_PER_CHANNEL_PER_TOKEN",
        "FP8_PER_TENSOR_DYNAMIC",
        "W8A16_FP8",
        "W8A16_FP8_PER_CHANNEL",
    }
)
_NVFP4 = frozenset({"NVFP4", "W4A16_NVFP4"})
LOADED: Mapping[str, frozenset[str]] = {
    MODELOPT: _NVFP4 | {"FP8", "FP8_PB_WO", "FP8_PER_CHANNEL_PER_TOKEN", "MXFP8"},
    COMPRESSED: _NVFP4 | _FP8_BY_GROUPS,
    NATIVE_FP8: frozenset({"FP8", "FP8_PER_BLOCK", "FP8_PER_TENSOR_DYNAMIC", "NVFP4", "MXFP4"}),
    NATIVE_MXFP4: frozenset({"MXFP4"}),
}
"""Algorithms that vLLM loads on some platform, by layout; the same from 0.25.0 to 0.33.0."""
READ: Mapping[str, frozenset[str]] = {
    **LOADED,
    MODELOPT: LOADED[MODELOPT] | {"MXFP4", "W4A8_NVFP4_FP8", "W4A16_AWQ"},
}
"""What harness can check, by layout."""


def canonical(name: object) -> str:
    """Return the one name of an algorithm that a file names in any case and spelling."""
    upper = str(name).upper()
    return _OTHER_NAMES.get(upper, upper)


def parts_of(algorithms: Iterable[str], *, kv: str | None = None) -> tuple[str, ...]:
    """Return what layers with these algorithms compute, as a Deployment lists it.

    Args:
        algorithms: of the layers.
        kv: format of keys and values, such as `fp8`; None where they stay as they are.
    """
    found = [ALGORITHMS[name] for name in sorted(algorithms)]
    weights = [f"weights:{algorithm.weights}" for algorithm in found]
    inputs = [f"inputs:{algorithm.inputs}" for algorithm in found if algorithm.inputs]
    return tuple(dict.fromkeys((*weights, *inputs, *((f"kv:{kv}",) if kv else ()))))
