"""Which bytes of which file are which bytes of a decoder layer in memory.

A layer's parameters lie one behind the other in one block of memory. Where a tensor of the files
has the type of the model, its bytes go there as they are; the few others are converted.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Inventory, Slice
from harness.errors import ModelError
from harness.models.dtypes import header_dtype
from harness.models.slices import cut
from harness.models.source import Source

_ALIGNMENT = 256
"""Of each parameter in bytes, as the allocators of torch have it."""


class Span(NamedTuple):
    """Bytes of a file and where they go."""

    shard: str
    offset: int
    num_bytes: int
    into: int
    """First byte in the layer's block."""


class View(NamedTuple):
    """A parameter in the layer's block."""

    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Return its size."""
        return math.prod(self.shape) * self.dtype.itemsize


class LayerMap(NamedTuple):
    """How a layer comes into memory."""

    num_bytes: int
    views: Mapping[str, View]
    """By the running model's name."""
    spans: Sequence[Span]
    converted: Sequence[tuple[Slice, Slice]]
    """What has another type or order in the files: where it lies there, and where in the model."""


class Origins:
    """Where each parameter of a running model comes from."""

    def __init__(self, source: Source, inventory: Inventory) -> None:
        """Take the names; nothing is read."""
        self._source = source
        self._by_parameter: dict[str, list[tuple[Slice, Slice]]] = defaultdict(list)
        for linear in inventory.linears:
            self._by_parameter[linear.parameter.tensor].append((linear.source, linear.parameter))
        for piece in inventory.pieces:
            self._by_parameter[piece.parameter.tensor].append((piece.source, piece.parameter))
        for parameter, name in inventory.others.items():
            self._by_parameter[parameter].append((Slice(tensor=name), Slice(tensor=parameter)))

    def map_layer(self, parameters: Mapping[str, Tensor]) -> LayerMap:
        """Say how parameters, of which type and shape alone are looked at, come into memory.

        Raises:
            ModelError: a parameter comes from nowhere, or a tensor does not fit its place.
        """
        views: dict[str, View] = {}
        position = 0
        for name, parameter in parameters.items():
            views[name] = View(position, parameter.dtype, tuple(parameter.shape))
            position += -(-parameter.nbytes // _ALIGNMENT) * _ALIGNMENT
        spans: list[Span] = []
        converted: list[tuple[Slice, Slice]] = []
        for name, view in views.items():
            placed = 0
            for origin, place in _joined(self._by_parameter.get(name, ())):
                placed += math.prod(_cut(view.shape, place).shape)
                span = self._span(origin, place, view)
                if span is None:
                    converted.append((origin, place))
                else:
                    spans.append(span)
            if placed != math.prod(view.shape):
                message = (
                    f"'{name}' of the model would get {placed} of its {math.prod(view.shape)} "
                    f"values from the files of '{self._source.name}'. Download the model again."
                )
                raise ModelError(message)
        return LayerMap(position, views, tuple(_merged(spans)), tuple(converted))

    def _span(self, origin: Slice, place: Slice, view: View) -> Span | None:
        """Return bytes that go to their place as they are; None if they have to be converted."""
        header = self._source.tensors[origin.tensor]
        there, here = _cut(header.shape, origin), _cut(view.shape, place)
        if there.numel() != here.numel():
            message = (
                f"'{origin.tensor}' has the shape {list(there.shape)}, but its place in the model "
                f"has {list(here.shape)}. Correct config.json, or download the model again."
            )
            raise ModelError(message)
        if header_dtype(view.dtype) != header.dtype or origin.tensor in self._source.packed:
            return None
        if not (there.is_contiguous() and here.is_contiguous()):
            return None
        item_bytes = header.num_bytes // max(1, math.prod(header.shape))
        return Span(
            shard=header.shard,
            offset=header.offset + int(there.storage_offset()) * item_bytes,
            num_bytes=there.numel() * item_bytes,
            into=view.offset + int(here.storage_offset()) * view.dtype.itemsize,
        )


def _joined(pairs: Sequence[tuple[Slice, Slice]]) -> Sequence[tuple[Slice, Slice]]:
    """Return one pair for a parameter that is a tensor of the files as it is."""
    tensors = {origin.tensor for origin, _ in pairs}
    if len(tensors) != 1 or any(replace(o, tensor=p.tensor) != p for o, p in pairs):
        return pairs
    return [(Slice(tensor=tensors.pop()), Slice(tensor=pairs[0][1].tensor))]


def _cut(shape: tuple[int, ...], where: Slice) -> Tensor:
    """Return the same of a tensor without memory."""
    return cut(torch.empty(shape, dtype=torch.uint8, device="meta"), where)


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """Join spans that follow each other in the file and in memory."""
    last: Span | None = None
    for span in sorted(spans):
        if last is not None and _follows(span, last):
            last = last._replace(num_bytes=last.num_bytes + span.num_bytes)
            continue
        if last is not None:
            yield last
        last = span
    if last is not None:
        yield last


def _follows(span: Span, last: Span) -> bool:
    end = last.offset + last.num_bytes
    return (span.shard, span.offset, span.into) == (last.shard, end, last.into + last.num_bytes)
