"""Which part of the source model each tensor of a checkpoint was made from.

Told by names and shapes where they tell. Both layouts of routed experts are read on either side:
stacked (`experts.gate_up_proj`, one tensor [expert, out, in] a layer, gate above up) and one by one
(`experts.7.gate_proj.weight`). Where names do not explain every tensor of the source, its structure
is asked (`harness.models.layers_of`): experts may be transposed, interleaved or called otherwise.
A tensor that nothing explains is reported as one that the source lacks.
"""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from harness import models
from harness.artifacts import Slice, TensorHeader
from harness.errors import HarnessError
from harness.verify.modules import expert_of
from harness.verify.shards import ITEM_BYTES, Shard
from harness.verify.stored import Bytes, StoredPart, StoredTensors
from harness.verify.unpacked import Pairs

_log = logging.getLogger("harness.verify")
STACKED: Mapping[str, tuple[str, ...]] = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "down_proj": ("down_proj",),
}
"""Projections of an expert in the rows of a stacked tensor, from the first row on."""
_STACK_DIMS = 3
_MAX_EXPERTS = 1 << 16
"""No model has as many; a header may name 2**40, which nothing must count up to."""


class SourceTensors(StoredTensors):
    """The tensors of the model that a checkpoint was made from, and what they are parts of."""

    def __init__(
        self, directory: Path, shards: tuple[Shard, ...], config: Mapping[str, object]
    ) -> None:
        super().__init__(directory, shards)
        self._pairs = Pairs(config, self)
        self.headers = self._pairs.unpacked()
        self.layers: Mapping[str, Slice] = {}
        """Where the weight of each linear layer lies; empty where names tell it."""

    def fill(self, content: Bytes, part: StoredPart, start: int) -> None:
        """Read a part as its base does; of a pair, what it means."""
        if part.tensor in self._pairs.names:
            self._pairs.fill(content, part, start)
        else:
            super().fill(content, part, start)

    def ask_structure(self, checkpoint: Mapping[str, TensorHeader]) -> None:
        """Ask for the model's structure if names do not explain what is in a checkpoint."""
        if all(_is_explained(n, h, checkpoint) for n, h in self.headers.items()):
            return
        try:
            self.layers = models.layers_of(self.directory)
        except HarnessError as error:
            _log.info("verify: the source's structure is not understood (%s)", error)

    def made_from(self, name: str) -> tuple[str, ...]:
        """Return the layers whose weights lie in a tensor, as the names of their weights."""
        return tuple(self._made.get(name, ()))

    @cached_property
    def _made(self) -> Mapping[str, Sequence[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for module, where in self.layers.items():
            found[where.tensor].append(f"{module}.weight")
        return found


def _is_explained(name: str, header: TensorHeader, checkpoint: Mapping[str, TensorHeader]) -> bool:
    """Tell whether names alone lead from a tensor of the source to the checkpoint's."""
    if name in checkpoint:
        return True
    if not is_stack(name, header):
        return False
    experts, _, leaf = name.rpartition(".")
    parts = STACKED[leaf]
    first = checkpoint.get(f"{experts}.0.{parts[0]}.weight")
    return first is not None and first.shape[0] * len(parts) == header.shape[1]


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


def source_part(module: str, source: SourceTensors) -> StoredPart | None:
    """Return the part of the source that holds the weight of `module`."""
    found = source.layers.get(module)
    return _named_part(module, source) if found is None else _part_of(found, source)


def _named_part(module: str, source: SourceTensors) -> StoredPart | None:
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


def _part_of(where: Slice, source: SourceTensors) -> StoredPart:
    """Return the part of the source that a slice names."""
    header = source.headers[where.tensor]
    *_, height, width = header.shape
    start = (where.expert or 0) * height * width
    row, column = width, 1
    if where.is_transposed:
        (height, width), (row, column) = (width, height), (1, width)
    rows = where.rows or (0, height)
    start, row = start + rows[0] * row, row * where.step
    shape = (len(range(*rows, where.step)), width)
    is_contiguous = (row, column) == (width, 1)
    item_bytes = ITEM_BYTES[header.dtype]
    return StoredPart(
        where.tensor, shape, start * item_bytes, None if is_contiguous else (row, column)
    )


def _of_stack(stack: str, source: SourceTensors, expert: int, index: int) -> StoredPart | None:
    header = source.headers[stack]
    if not is_stack(stack, header) or expert >= header.shape[0]:
        return None
    num_rows = header.shape[1] // len(STACKED[stack.rpartition(".")[2]])
    row_bytes = header.shape[2] * ITEM_BYTES[header.dtype]
    start = (expert * header.shape[1] + index * num_rows) * row_bytes
    return StoredPart(stack, (num_rows, header.shape[2]), start)


def copied_from(name: str, header: TensorHeader, source: SourceTensors) -> tuple[Pair, ...]:
    """Return where the rows of an unquantized tensor come from; empty if the source lacks it."""
    if name in source.headers:
        whole = source.whole(name)
        return (Pair(0, whole.shape[0] if whole.shape else 1, whole),)
    if not is_stack(name, header):
        module, _, leaf = name.rpartition(".")
        part = source_part(module, source) if leaf == "weight" else None
        return (Pair(0, part.shape[0], part),) if part else ()
    return tuple(_unstacked(name, header, source))


def _unstacked(name: str, header: TensorHeader, source: SourceTensors) -> Iterator[Pair]:
    """Yield the parts of a stack whose source has one tensor an expert and projection."""
    experts, _, leaf = name.rpartition(".")
    num_rows = header.shape[1] // len(STACKED[leaf])
    for number in range(header.shape[0]):
        for index, projection in enumerate(STACKED[leaf]):
            tensor = f"{experts}.{number}.{projection}.weight"
            if tensor in source.headers:
                row = number * header.shape[1] + index * num_rows
                yield Pair(row, num_rows, source.whole(tensor))


def modules_from(
    name: str, header: TensorHeader, source: SourceTensors
) -> Sequence[tuple[str, ...]]:
    """Return the tensors that must stand for a tensor of the source, as unquantized names.

    Several tuples are several ways to spell them, of which one must be there as a whole.
    """
    found = source.made_from(name)
    return [way for way in (_stacked_names(name, header), found) if way] or [(name,)]


def _stacked_names(name: str, header: TensorHeader) -> tuple[str, ...]:
    if not is_stack(name, header):
        return ()
    experts, _, leaf = name.rpartition(".")
    return tuple(
        f"{experts}.{number}.{projection}.weight"
        for number in range(header.shape[0])
        for projection in STACKED[leaf]
    )
