"""Weights of one shape together: all experts' matrices of a projection, where a model runs.

What is done with 256 experts is done in one step instead of 256.

Shapes: E weights, O output features, I input features.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from harness.artifacts import PlannedLinear


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


def stacks(
    planned: Mapping[str, Sequence[PlannedLinear]], weights: Mapping[str, Tensor]
) -> Iterator[Stack]:
    """Yield the planned layers that are among `weights`, both by parameter."""
    for name, weight in weights.items():
        groups: dict[tuple[object, ...], list[PlannedLinear]] = defaultdict(list)
        for one in planned.get(name, ()):
            groups[one.linear.parameter.rows, one.weight_format].append(one)
        for members in groups.values():
            yield Stack(tuple(members), _stacked(members, weight.detach()))


def _stacked(members: Sequence[PlannedLinear], weight: Tensor) -> Tensor:
    where = members[0].linear.parameter
    rows = slice(*where.rows) if where.rows is not None else slice(None)
    experts = [one.linear.parameter.expert for one in members]
    numbers = [expert for expert in experts if expert is not None]
    if not numbers:
        return weight[rows].unsqueeze(0)
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return weight[numbers[0] : numbers[0] + len(numbers), rows]
    return weight[numbers, rows]
