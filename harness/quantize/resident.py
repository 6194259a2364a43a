"""Quantize weights while they are in memory, all experts of a projection in one step.

Shapes: E weights of one shape, O output features, I input features.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from harness.artifacts import QuantizedTensor, QuantPlan
from harness.formats import get_format
from harness.models import Stack, by_parameter, stacks
from harness.quantize.amax import WeightGroups


class ResidentQuantizer:
    """Quantizes the parts of a model that somebody else has in memory."""

    def __init__(self, plan: QuantPlan) -> None:
        """Take the plan."""
        self._plan = by_parameter(plan.quantized)
        self._groups: dict[str, set[str]] = defaultdict(set)
        for planned in plan.quantized:
            self._groups[planned.linear.group].add(planned.linear.name)

    def quantize(
        self, weights: Mapping[str, Tensor], amax: Mapping[str, float]
    ) -> Iterator[QuantizedTensor]:
        """Yield the planned ones among `weights`, without the scales of their inputs.

        Those are left out whose group has members without a value in `amax`.

        Args:
            weights: by the running model's names, on any device; what is yielded is on the CPU.
            amax: largest values by Linear.name.
        """
        found = list(stacks(self._plan, weights))
        groups = WeightGroups.of((one for stack in found for one in stack.members), amax)
        for stack in found:
            if all(self._groups[one.linear.group] <= amax.keys() for one in stack.members):
                yield from _quantized(stack, groups)


def _on_cpu(stored: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return what a GPU computed, through pinned memory, which it writes to by itself."""
    copies = {
        suffix: torch.empty(
            tensor_E.shape, dtype=tensor_E.dtype, pin_memory=tensor_E.is_cuda
        ).copy_(tensor_E, non_blocking=True)
        if tensor_E.is_cuda
        else tensor_E
        for suffix, tensor_E in stored.items()
    }
    device = next(iter(stored.values())).device
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return copies


def _quantized(stack: Stack, groups: WeightGroups) -> Iterator[QuantizedTensor]:
    members, weight_EOI = stack
    number_format = get_format(members[0].weight_format)
    amax = [groups.for_weight(planned) for planned in members]
    stored = number_format.quantize_weights(weight_EOI, amax=amax)
    on_cpu = _on_cpu(stored)
    for index, planned in enumerate(members):
        yield QuantizedTensor(
            source=planned.linear.source.tensor,
            tensors={f"{planned.linear.name}.{s}": t_E[index] for s, t_E in on_cpu.items()},
            format=planned.weight_format,
        )
