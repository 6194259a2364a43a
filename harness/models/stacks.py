"""Weights of one shape together: all experts' matrices of a projection, where a model runs.

What is done with 256 experts is done in one step instead of 256.

Shapes: E weights, O output features, I input features.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from harness.artifacts import PlannedLinear, QuantPlan
from harness.models.reader import stored_dtype_name
from harness.models.source import Source
from harness.models.stream import ResidentLayer


class Stack(NamedTuple):
    """Planned layers of one shape and one format."""

    members: tuple[PlannedLinear, ...]
    weight_EOI: Tensor
    """Their weights in the same order, a view of the running model's where it can be one."""


def by_parameter(planned: Iterable[PlannedLinear]) -> Mapping[str, Sequence[PlannedLinear]]:
    """Return planned layers by the running model's parameter that holds their weights."""
    found: dict[str, list[PlannedLinear]] = defaultdict(list)
    for one in planned:
        found[one.linear.parameter.tensor].append(one)
    return dict(found)


class StackedWeights:
    """Finds the planned weights of a decoder layer that is in memory.

    A model has one type. Weights that the files store in another were rounded to it, and are left
    out: a checkpoint is made of the files' own. So are those that are stored as codes.
    """

    def __init__(self, source: Source, plan: QuantPlan, *, as_they_run: bool = False) -> None:
        """Take the plan; nothing is read. `as_they_run` leaves none out: no checkpoint is made."""
        exact = stored_dtype_name(source)
        self._planned = by_parameter(
            one
            for one in plan.quantized
            if as_they_run
            or (
                source.tensors[one.linear.source.tensor].dtype == exact
                and one.linear.source.tensor not in source.packed
            )
        )

    def of(self, layer: ResidentLayer) -> Iterator[Stack]:
        """Yield them; they are changed when the layer is in memory no more."""
        for name, weight in layer.module.named_parameters(layer.path):
            groups: dict[tuple[object, ...], list[PlannedLinear]] = defaultdict(list)
            for one in self._planned.get(name, ()):
                groups[one.linear.parameter.rows, one.weight_format].append(one)
            for members in groups.values():
                where, stack = members[0].linear.parameter, weight.detach()[_experts_of(members)]
                stack = stack.mT if where.is_transposed else stack
                rows = slice(None) if where.rows is None else slice(*where.rows, where.step)
                yield Stack(tuple(members), stack[:, rows])


def _experts_of(members: Sequence[PlannedLinear]) -> slice | list[int] | None:
    """Return the index of their experts in a parameter, None where it is one matrix."""
    numbers = [n for one in members if (n := one.linear.parameter.expert) is not None]
    if not numbers:
        return None
    first, end = numbers[0], numbers[-1] + 1
    return slice(first, end) if numbers == list(range(first, end)) else numbers
