"""Which tensors of the files reached which bytes of which parameter.

vLLM's loaders take a tensor through any number of casts, slices and concatenations before they
copy it into a parameter. So the names of the files' tensors are carried along with the memory
that holds their values: a `TorchDispatchMode` sees every operation of the loading thread, marks
what an operation makes from marked memory, and notes each write into a parameter. Views share
their memory and need no mark.

What is left out: values that take a way round torch. One such way is known and followed: the
default loader fills a parameter of one element with `tensor.item()`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Span = tuple[int, int]
"""First byte and the byte after the last, within one piece of memory."""
Names = frozenset[str]

_NONE: Names = frozenset()
_MAX_ROWS = 1 << 22
"""Rows of a strided write that are noted one by one."""


@dataclass(slots=True)
class Writes:
    """What was written into one piece of memory."""

    spans: list[Span] = field(default_factory=list)
    """Every write, also of constants such as the zeros of a padding."""
    sourced: list[tuple[Span, Names]] = field(default_factory=list)
    """The writes that came from the files, with the tensors they came from."""


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class is untyped
    """Notes writes into watched memory while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class is untyped
        self.taken: set[str] = set()
        """Tensors of the files that reached a parameter."""
        self.failed: str | None = None
        """Why an operation could not be followed; then no more is, and the load goes on."""
        self._watched: dict[int, Writes] = {}
        self._marks: dict[int, Names] = {}
        self._scalar: tuple[object, Names] | None = None

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Note the writes into these tensors' memory from now on."""
        for tensor in tensors:
            self._watched.setdefault(memory(tensor), Writes())

    def mark(self, name: str, tensor: Tensor) -> None:
        """Say that this tensor is the files' tensor of that name."""
        self._marks[memory(tensor)] = frozenset((name,))

    def writes(self, tensor: Tensor) -> Writes:
        """Return what was written into this tensor's memory, also by putting other memory there."""
        key = memory(tensor)
        known = self._watched.get(key)
        if known is not None:
            return known
        names = self._marks.get(key, _NONE)
        self.taken |= names
        whole = [*spans(tensor)]
        return Writes(spans=whole, sourced=[(span, names) for span in whole] if names else [])

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation and note what it did."""
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self.failed is None:
            try:
                self._follow(func, args, kwargs, result)
            except Exception as error:  # noqa: BLE001 -- what is loaded is not to suffer for it
                self.failed = f"{func} cannot be followed: {error}"
        return result

    def _follow(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: object
    ) -> None:
        if _is_view(func):
            return
        names = self._names_of(args, kwargs)
        if func is torch.ops.aten._local_scalar_dense.default:
            self._scalar = (result, names) if names else None
            return
        if func is torch.ops.aten.fill_.Scalar and self._scalar is not None:
            value, source = self._scalar
            names = source if args[1] == value or args[1] != args[1] else names
        written = _written(func)
        if written:
            self._note(written, args, kwargs, names)
        else:
            self._carry(result, names)

    def _names_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Names:
        """Return the files' tensors that these arguments hold values of."""
        found = [
            mark
            for tensor in _tensors((args, *kwargs.values()))
            if (mark := self._marks.get(memory(tensor)))
        ]
        return found[0] if len(found) == 1 else _NONE.union(*found)

    def _note(
        self,
        written: tuple[int | str, ...],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        names: Names,
    ) -> None:
        for place in written:
            target = kwargs.get(place) if isinstance(place, str) else args[place : place + 1]
            for tensor in _tensors(target):
                writes = self._watched.get(memory(tensor))
                if writes is None:
                    self._marks[memory(tensor)] = self._marks.get(memory(tensor), _NONE) | names
                    continue
                new = [*spans(tensor)]
                writes.spans.extend(new)
                if names:
                    self.taken |= names
                    writes.sourced.extend((span, names) for span in new)

    def _carry(self, result: object, names: Names) -> None:
        """Mark what the operation made; also with nothing, for memory is used again."""
        for tensor in _tensors(result):
            key = memory(tensor)
            if names:
                self._marks[key] = names
            else:
                self._marks.pop(key, None)


def memory(tensor: Tensor) -> int:
    """Return what identifies the memory that a tensor is a view of."""
    return int(tensor.untyped_storage()._cdata)


def spans(tensor: Tensor) -> Iterator[Span]:
    """Yield the bytes of its memory that a tensor covers, one span a row where it is strided."""
    if tensor.numel() == 0:
        return
    size = tensor.element_size()
    first = int(tensor.storage_offset()) * size
    run = size
    outer: list[range] = []
    for stride, length in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if stride * size == run and not outer:
            run *= length
        elif stride and length > 1:
            outer.append(range(0, stride * size * length, stride * size))
    if prod(map(len, outer)) > _MAX_ROWS:
        message = f"a write of {prod(map(len, outer))} separate rows cannot be followed"
        raise RuntimeError(message)
    for steps in product(*outer):
        start = first + sum(steps)
        yield start, start + run


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


@cache
def _is_view(func: Any) -> bool:
    """Whether the result shares its argument's memory and nothing is written."""
    aliases = [a.alias_info for a in func._schema.arguments if a.alias_info is not None]
    return bool(aliases) and not any(a.is_write for a in aliases)


@cache
def _written(func: Any) -> tuple[int | str, ...]:
    """Return the arguments that an operation writes into: a place, or a name if keyword-only."""
    return tuple(
        argument.name if argument.kwarg_only else place
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )
