"""Which part of the source model each tensor of a checkpoint was made from, by names and shapes.

Both layouts of routed experts are read on either side: stacked (`experts.gate_up_proj`, one tensor
[expert, out, in] a layer, gate above up) and one by one (`experts.7.gate_proj.weight`). No model
family is named here; a tensor that neither rule explains is reported as one that the source lacks.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import TensorHeader
from harness.verify.modules import expert_of
from harness.verify.shards import ITEM_BYTES
from harness.verify.stored import StoredPart, StoredTensors

STACKED: Mapping[str, tuple[str, ...]] = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}
"""Projections of an expert in the rows of a stacked tensor, from the first row on."""
_STACK_DIMS = 3
_MAX_EXPERTS = 1 << 16
"""No model has as many; a header may name 2**40, which nothing must count up to."""


class Pair(NamedTuple):
    """A part of a checkpoint's tensor and the part of the source that it was made from."""

    first_row: int
    """Of the checkpoint's tensor, its first two dimensions flattened where it is a stack."""
    num_rows: int
    source: StoredPart


def is_stack(name: str, header: TensorHeader) -> bool:
    """Return whether a tensor stacks a projection of all experts of a layer."""
    parent, _, leaf = name.rpartition(".")
    is_named_so = leaf in STACKED and parent.endswith(".experts")
    return is_named_so and len(header.shape) == _STACK_DIMS and header.shape[0] <= _MAX_EXPERTS


def source_part(module: str, source: StoredTensors) -> StoredPart | None:
    """Return the part of the source that holds the weight of `module`."""
    name = f"{module}.weight"
    if name in source.headers:
        return source.whole(name)
    expert = expert_of(module)
    if expert is None:
        return None
    for leaf, projections in STACKED.items():
        stack = f"{expert.experts}.{leaf}"
        if expert.projection in projections and stack in source.headers:
            return _of_stack(stack, source, expert.number, projections.index(expert.projection))
    return None


def _of_stack(stack: str, source: StoredTensors, expert: int, index: int) -> StoredPart | None:
    header = source.headers[stack]
    if not is_stack(stack, header) or expert >= header.shape[0]:
        return None
    num_rows = header.shape[1] // len(STACKED[stack.rpartition(".")[2]])
    row_bytes = header.shape[2] * ITEM_BYTES[header.dtype]
    start = (expert * header.shape[1] + index * num_rows) * row_bytes
    return StoredPart(stack, (num_rows, header.shape[2]), start)


def copied_from(name: str, header: TensorHeader, source: StoredTensors) -> tuple[Pair, ...]:
    """Return where the rows of an unquantized tensor come from; empty if the source lacks it."""
    if name in source.headers:
        whole = source.whole(name)
        return (Pair(0, whole.shape[0] if whole.shape else 1, whole),)
    if not is_stack(name, header):
        module, _, leaf = name.rpartition(".")
        part = source_part(module, source) if leaf == "weight" else None
        return (Pair(0, part.shape[0], part),) if part else ()
    return tuple(_unstacked(name, header, source))


def _unstacked(name: str, header: TensorHeader, source: StoredTensors) -> Iterator[Pair]:
    """Yield the parts of a stack whose source has one tensor an expert and projection."""
    experts, _, leaf = name.rpartition(".")
    num_rows = header.shape[1] // len(STACKED[leaf])
    for number in range(header.shape[0]):
        for index, projection in enumerate(STACKED[leaf]):
            tensor = f"{experts}.{number}.{projection}.weight"
            if tensor in source.headers:
                row = number * header.shape[1] + index * num_rows
                yield Pair(row, num_rows, source.whole(tensor))


def modules_from(name: str, header: TensorHeader) -> tuple[str, ...]:
    """Return the tensors that must stand for a tensor of the source, as unquantized names."""
    if not is_stack(name, header):
        return (name,)
    experts, _, leaf = name.rpartition(".")
    return tuple(
        f"{experts}.{number}.{projection}.weight"
        for number in range(header.shape[0])
        for projection in STACKED[leaf]
    )
