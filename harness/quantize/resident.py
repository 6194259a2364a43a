"""Quantize weights while they are in memory, all experts of a projection in one step.

Shapes: E weights of one shape, O output features, I input features.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from harness.algorithms import SecondMoments, quantize_weights
from harness.artifacts import Algorithm, PlannedLinear, QuantizedTensor, QuantPlan
from harness.formats import get_format, stored_format
from harness.models import Stack
from harness.quantize.amax import WeightGroups

MomentsOf = Callable[[Sequence[PlannedLinear]], SecondMoments]
"""Takes layers of one shape and returns what their inputs are like."""

_TOGETHER = 128
"""Layers that are handed on at a time: what Python does for a part is done for all of them."""


class QuantizedStack(NamedTuple):
    """Quantized weights of one shape, on the device that computes them."""

    members: tuple[PlannedLinear, ...]
    stored_E: Mapping[str, Tensor]
    """What is stored of each, stacked, by the suffix of its name."""
    computed: torch.cuda.Event | None
    """When a GPU has computed it; None where it is there."""


class ResidentQuantizer:
    """Quantizes the weights of a decoder layer that is in memory."""

    def __init__(self, plan: QuantPlan) -> None:
        """Take the plan."""
        self._algorithm = plan.algorithm
        self._formats = {planned.weight_format for planned in plan.quantized}
        self._groups: dict[str, set[str]] = defaultdict(set)
        for planned in plan.quantized:
            self._groups[planned.linear.group].add(planned.linear.name)

    def prepare(self, device: torch.device) -> None:
        """Compile what would else be compiled for the first weight; a thread may do so.

        Kernels are compiled for sizes that are a multiple of 16, as those of real weights are.
        """
        weight_1OI = torch.ones(1, 64, 64, dtype=torch.bfloat16, device=device)
        for name in sorted(self._formats):
            get_format(name).quantize_weights(weight_1OI, amax=[1.0])
        if self._algorithm.chooses_numbers:
            whole = self._algorithm.needs_whole_inputs
            noise = SecondMoments.of_noise(1, 64, whole=whole, device=str(device))
            quantize_weights(weight_1OI, self._algorithm, amax=[1.0], moments=noise)

    def quantize(
        self,
        stacks: Iterable[Stack],
        amax: Mapping[str, float],
        moments_of: MomentsOf | None = None,
    ) -> Sequence[QuantizedStack]:
        """Return the weights quantized, without the scales of their inputs.

        Those are left out whose group has members without a value in `amax`.

        Args:
            stacks: weights on any device; a GPU need not be done with what is returned, but they
                may be changed by what is queued on it afterwards.
            amax: largest values by Linear.name.
            moments_of: for an algorithm that asks what inputs are like.
        """
        found = list(stacks)
        groups = WeightGroups.of((one for stack in found for one in stack.members), amax)
        quantized = []
        for members, weight_EOI in found:
            if not all(self._groups[one.linear.group] <= amax.keys() for one in members):
                continue
            ranges = [groups.for_weight(planned) for planned in members]
            first, algorithm = members[0], self._algorithm
            if not algorithm.chooses_numbers or first.weight_format != Algorithm.FORMAT:
                form = stored_format(first.weight_format, is_routed=first.linear.is_routed)
                stored_E: Mapping[str, Tensor] = form.quantize_weights(weight_EOI, amax=ranges)
            else:
                moments = moments_of(members) if moments_of and algorithm.needs_moments else None
                stored_E = quantize_weights(weight_EOI, algorithm, amax=ranges, moments=moments)
            computed = None
            if weight_EOI.is_cuda:
                computed = torch.cuda.current_stream(weight_EOI.device).record_event()
            quantized.append(QuantizedStack(members, stored_E, computed))
        return quantized


def fetched(stacks: Iterable[QuantizedStack]) -> Iterator[QuantizedTensor]:
    """Bring quantized weights to the CPU and yield them in parts; a thread of its own may do so.

    A GPU writes to pinned memory by itself, beside whatever else it computes.
    """
    for members, stored_E, computed in stacks:
        on_cpu = stored_E if computed is None else _copied(stored_E, computed)
        each = {suffix: tensor_E.unbind() for suffix, tensor_E in on_cpu.items()}
        for begin in range(0, len(members), _TOGETHER):
            some = members[begin : begin + _TOGETHER]
            tensors = {
                f"{planned.linear.name}.{suffix}": tensors_E[index]
                for index, planned in enumerate(some, begin)
                for suffix, tensors_E in each.items()
            }
            yield QuantizedTensor(some[0].linear.source.tensor, tensors, some[0].weight_format)


def _copied(stored_E: Mapping[str, Tensor], computed: torch.cuda.Event) -> Mapping[str, Tensor]:
    device = next(iter(stored_E.values())).device
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch
    stream.wait_event(computed)
    with torch.cuda.stream(stream):
        copies = {
            suffix: torch.empty(tensor_E.shape, dtype=tensor_E.dtype, pin_memory=True).copy_(
                tensor_E, non_blocking=True
            )
            for suffix, tensor_E in stored_E.items()
        }
    stream.synchronize()
    return copies
