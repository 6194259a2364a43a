"""Why a quantized weight is not near its source: the ways in which files went wrong before.

Each is undone on the first rows of the weight, and the one that makes it fit is named.
"""

from collections.abc import Iterator

import numpy as np

from harness.verify.dequantize import Coded, Weight, read_rows
from harness.verify.fitting import fit_of
from harness.verify.modules import expert_of
from harness.verify.origin import SourceTensors, source_part
from harness.verify.stored import Floats, StoredPart, StoredTensors

_SAMPLE_ROWS = 128
"""Causes are tried on the first rows only."""

NIBBLES = "the two codes of each byte are swapped"
SWIZZLED = "the block scales lie in the 128 x 4 order of a kernel"
TRANSPOSED = "the block scales are transposed"
INVERTED = "the global scale is inverted"


def explain(
    module: str, coded: Coded, checkpoint: StoredTensors, source: SourceTensors, bound: float
) -> str:
    """Return which known fault explains a weight; empty where none does.

    Args:
        module: the weight's name.
        coded: where it lies.
        checkpoint: its files.
        source: those of the model that it was made from.
        bound: the relative error that rounding explains.
    """
    part = source_part(module, source)
    if part is None:
        return ""
    weight, wanted = read_rows(coded, checkpoint, _SAMPLE_ROWS), _sample(part, source)
    for cause, changed in _changes(weight):
        if fit_of(changed, wanted).is_within(bound):
            return cause
    for other in _relatives(module, source):
        candidate = source_part(other, source)
        if (
            candidate is not None
            and candidate.shape == part.shape
            and fit_of(weight, _sample(candidate, source)).is_within(bound)
        ):
            return f"it was made from {other}"
    gain = fit_of(weight, wanted).gain
    rescaled = weight._replace(steps=weight.steps / np.float32(gain))
    if gain > 0 and fit_of(rescaled, wanted).is_within(bound):
        return f"its scale is {gain:.3g} times what it should be"
    return ""


def _sample(part: StoredPart, source: SourceTensors) -> Floats:
    return source.floats(part, (0, min(part.shape[0], _SAMPLE_ROWS)))


def _relatives(module: str, source: SourceTensors) -> Iterator[str]:
    """Yield the layers that a weight may have been mixed up with."""
    parent, _, leaf = module.rpartition(".")
    twins = {"gate_proj": "up_proj", "up_proj": "gate_proj", "w1": "w3", "w3": "w1"}
    twins |= {"k_proj": "v_proj", "v_proj": "k_proj"}
    if leaf in twins:
        yield f"{parent}.{twins[leaf]}"
    expert = expert_of(module)
    if expert is None:
        return
    number = 0
    while source_part(f"{expert.experts}.{number}.{leaf}", source) is not None:
        if number != expert.number:
            yield f"{expert.experts}.{number}.{leaf}"
        number += 1


def _changes(weight: Weight) -> Iterator[tuple[str, Weight]]:
    """Yield the weight with each known fault undone."""
    if weight.is_packed:
        swapped = np.bitwise_or(weight.codes >> 4, weight.codes << 4).astype(np.uint8)
        yield NIBBLES, weight._replace(codes=swapped)
    rows, columns = weight.steps.shape
    if rows % 128 == 0 and columns % 4 == 0:
        order = weight.steps.reshape(rows // 128, columns // 4, 32, 4, 4).transpose(0, 3, 2, 1, 4)
        yield SWIZZLED, weight._replace(steps=order.reshape(rows, columns))
    if rows > 1 and columns > 1:
        turned = np.ascontiguousarray(weight.steps.reshape(columns, rows).T)
        yield TRANSPOSED, weight._replace(steps=turned)
    # Block scales lie between 0 and 448, so that a global scale g and 1 / g are far apart.
    largest = float(weight.steps.max())
    if largest > 0:
        yield from _inverted(weight, largest)


def _inverted(weight: Weight, largest: float) -> Iterator[tuple[str, Weight]]:
    """Yield the weight with its global scale inverted: the largest block scale is 448 before it."""
    one = np.float32(largest / 448)
    if weight.is_packed and one > 0:
        yield INVERTED, weight._replace(steps=weight.steps / (one * one))
