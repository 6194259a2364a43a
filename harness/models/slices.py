"""Coordinates read as slices of tensors, and tensors cut by slices.

Shapes: E experts, O output features, I input features.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from harness.artifacts import Piece, Slice
from harness.errors import ModelError
from harness.models.conversion import OWNER_BITS, Arrived, Shape, shrink

_MATRIX, _STACK = 2, 3


class _View(NamedTuple):
    """Elements (o, i) at start + o * row + i * column of a tensor."""

    start: int
    row: int
    column: int


class _Cut(NamedTuple):
    """A slice without its tensor."""

    expert: int | None
    rows: tuple[int, int] | None
    step: int
    is_transposed: bool

    def of(self, tensor: str) -> Slice:
        return Slice(
            tensor=tensor,
            expert=self.expert,
            rows=self.rows,
            step=self.step,
            is_transposed=self.is_transposed,
        )


def cut(whole: Tensor, where: Slice) -> Tensor:
    """Return the view of a tensor that `where` names, [out, in] for a weight."""
    if where.expert is not None:
        whole = whole[where.expert]
    if where.is_transposed:
        whole = whole.mT
    return whole if where.rows is None else whole[slice(*where.rows, where.step)]


def read_blocks(
    arrived: Arrived, blocks_EOI: Tensor, shapes: Mapping[str, Shape]
) -> list[Slice] | None:
    """Return where the matrices of E coordinates lie; None if one is no slice of one tensor.

    Args:
        arrived: what the coordinates are a part of.
        blocks_EOI: coordinates.
        shapes: of the files' tensors.
    """
    _, num_rows, num_columns = blocks_EOI.shape
    owner_E = blocks_EOI[:, 0, 0] >> OWNER_BITS
    local_EOI = blocks_EOI - (owner_E << OWNER_BITS).view(-1, 1, 1)
    start_E = local_EOI[:, 0, 0]
    zero_E = torch.zeros_like(start_E)
    column_E = local_EOI[:, 0, 1] - start_E if num_columns > 1 else zero_E
    row_E = local_EOI[:, 1, 0] - start_E if num_rows > 1 else zero_E
    rows_O1 = torch.arange(num_rows).view(-1, 1)
    columns_1I = torch.arange(num_columns).view(1, -1)
    regular_EOI = (
        start_E.view(-1, 1, 1)
        + row_E.view(-1, 1, 1) * rows_O1
        + column_E.view(-1, 1, 1) * columns_1I
    )
    if not torch.equal(regular_EOI, local_EOI):
        return None
    found: list[Slice] = []
    views = zip(*(t.tolist() for t in (owner_E, start_E, row_E, column_E)), strict=True)
    for owner, *view in views:
        name = arrived.tensors[owner]
        cut_out = _cut_of(shapes[name], arrived.shrunk, _View(*view), (num_rows, num_columns))
        if cut_out is None:
            return None
        found.append(cut_out.of(name))
    return found


@lru_cache(maxsize=1 << 14)
def _cut_of(shape: Shape, factor: int, view: _View, size: tuple[int, int]) -> _Cut | None:
    """Return a strided view of a tensor as a slice of it."""
    if len(shape) not in {_MATRIX, _STACK}:
        return None
    (*stack, height, width), (num_rows, num_columns) = shrink(shape, factor), size
    expert, begin = divmod(view.start, height * width)
    is_transposed = num_columns > 1 and view.column != 1
    if is_transposed:
        offset, first = divmod(begin, width)
        step, num_all = view.row, width
        is_regular = view.column == width and num_columns == height
    else:
        first, offset = divmod(begin, width)
        step, num_all = view.row // width, height
        is_regular = num_columns == width and view.row % width == 0
    step = 1 if num_rows == 1 else step
    if offset or step < 1 or not is_regular:
        return None
    phase = first % step
    begins = (first - phase) * factor
    rows = begins + phase, begins + num_rows * step * factor
    is_all = step == 1 and num_rows == num_all
    return _Cut(expert if stack else None, None if is_all else rows, step, is_transposed)


def read_pieces(parameter: str, arrived: Arrived, shapes: Mapping[str, Shape]) -> list[Piece]:
    """Return the parts that a parameter is put together of.

    Raises:
        ModelError: they are no slices of tensors.
    """
    place = Slice(tensor=parameter)
    if arrived.coordinates is None:
        return [Piece(source=Slice(tensor=arrived.tensors[0]), parameter=place)]
    if arrived.shrunk != 1:
        matrix = read_blocks(arrived, arrived.coordinates[None], shapes)
        pieces = [Piece(source=matrix[0], parameter=place)] if matrix else None
    else:
        pieces = _pieces(place, arrived, arrived.coordinates, shapes)
    if pieces is None:
        raise not_slices(parameter, arrived)
    return pieces


def not_slices(parameter: str, arrived: Arrived) -> ModelError:
    """Return what is said of a parameter that is no slice of tensors."""
    others = f" and {len(arrived.tensors) - 1} more" if len(arrived.tensors) > 1 else ""
    return ModelError(
        f"'{parameter}' is made of '{arrived.tensors[0]}'{others} in a way that is not understood. "
        "Understood are parameters that are tensors of the files, or rows or experts of them."
    )


def _pieces(
    place: Slice, arrived: Arrived, coordinates: Tensor, shapes: Mapping[str, Shape]
) -> list[Piece] | None:
    source = _straight(arrived, coordinates, shapes)
    if source is not None:
        return [Piece(source=source, parameter=place)]
    if coordinates.ndim == _MATRIX:
        matrix = read_blocks(arrived, coordinates[None], shapes)
        if matrix is not None:
            return [Piece(source=matrix[0], parameter=place)]
    found: list[Piece] = []
    for part, values in _parts(place, coordinates):
        pieces = _pieces(part, arrived, values, shapes)
        if pieces is None:
            return None
        found += pieces
    return found or None


def _straight(arrived: Arrived, coordinates: Tensor, shapes: Mapping[str, Shape]) -> Slice | None:
    """Return the slice of a tensor whose values these are, all in its order."""
    flat = coordinates.reshape(-1)
    first, count = int(flat[0]), flat.numel()
    owner, start = first >> OWNER_BITS, first & ((1 << OWNER_BITS) - 1)
    name = arrived.tensors[owner]
    shape = shapes[name]
    step = int(flat[1]) - first if count > 1 and len(shape) == 1 else 1
    if step < 1 or not torch.equal(flat, first + step * torch.arange(count)):
        return None
    if start == 0 and count == math.prod(shape):
        return Slice(tensor=name)
    if len(shape) == 1:
        return Slice(tensor=name, rows=(start, start + count * step - start % step), step=step)
    width = math.prod(shape[1:])
    if coordinates.ndim == len(shape) and start % width == count % width == 0:
        return Slice(tensor=name, rows=(start // width, (start + count) // width))
    return (
        Slice(tensor=name, expert=start // width) if (start % width, count) == (0, width) else None
    )


def _parts(place: Slice, coordinates: Tensor) -> Iterator[tuple[Slice, Tensor]]:
    """Yield a parameter's parts along its first dimension: runs of one distance, or one by one."""
    if place.rows is not None:
        return
    begins = coordinates.reshape(len(coordinates), -1)[:, 0]
    runs = list(_runs(begins.tolist()))
    if 1 < len(runs) <= max(len(begins) // 2, 2):
        for first, last in runs:
            where = Slice(tensor=place.tensor, expert=place.expert, rows=(first, last))
            yield where, coordinates[first:last]
    elif place.expert is None and coordinates.ndim > 1:
        for number, values in enumerate(coordinates):
            yield Slice(tensor=place.tensor, expert=number), values


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where numbers of one distance within one tensor begin and end."""
    begin = 0
    for index in range(1, len(numbers)):
        is_other_tensor = numbers[index] >> OWNER_BITS != numbers[begin] >> OWNER_BITS
        step = numbers[begin + 1] - numbers[begin]
        if is_other_tensor or numbers[index] - numbers[index - 1] != step:
            yield begin, index
            begin = index
    yield begin, len(numbers)
