"""Quantize a decoder layer's weights in the order in which they are used.

Each sees what it gets behind those that are quantized already, in this layer and before it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from harness.artifacts import PlannedLinear
from harness.calibrate import Calibration, Turn
from harness.models import ResidentLayer, Stack, by_parameter, stored_dtype, twin_of
from harness.preflight import Job
from harness.quantize import (
    InputRounding,
    QuantizedStack,
    ResidentQuantizer,
    hold_as_stored,
    input_scales,
    stored_of,
)


class InTurns:
    """Quantizes decoder layers, one after another."""

    def __init__(self, job: Job, calibration: Calibration, quantizer: ResidentQuantizer) -> None:
        """Take the calibration that yields the layers, and what quantizes their weights."""
        self._job, self._calibration, self._quantizer = job, calibration, quantizer
        self._planned = by_parameter(job.plan.quantized)

    def quantize(
        self, layer: ResidentLayer, stacks: Iterable[Stack], amax: Mapping[str, float]
    ) -> Sequence[QuantizedStack]:
        """Quantize what `ResidentQuantizer.quantize` does of a layer that ran, and follow it.

        Raises:
            ModelError: its inputs cannot be held beside those of the unquantized model.
            RejectedError: no scale can be made of what an input showed.
        """
        found, following = list(stacks), self._calibration.following
        planned = self._planned_of(layer)
        largest = self._calibration.largest_inputs(planned)
        scales = input_scales(planned, largest, self._job.plan)
        rounding = InputRounding(planned, scales, self._job.recipe.device)
        quantized: list[QuantizedStack] = []
        here = {one.linear.name for stack in found for one in stack.members}
        # What is not made here has the numbers that the model has: it is cast, or left for later.
        done = {one.linear.parameter.tensor for one in planned if one.linear.name not in here}
        twin = twin_of(layer)
        for names, part in _turns(found, following.turns(layer), self._calibration):
            if names and part:
                following.see(layer, Turn(names, twin, frozenset(done), rounding))
            made = self._quantizer.quantize(part, amax, self._calibration.moments)
            members = [one for stack in made for one in stack.members]
            hold_as_stored(twin, members, stored_of(made), stored_dtype(self._job.source))
            done |= {one.linear.parameter.tensor for one in members}
            quantized += made
        following.go_on(twin, rounding)
        return quantized

    def _planned_of(self, layer: ResidentLayer) -> Sequence[PlannedLinear]:
        names = (name for name, _ in layer.module.named_parameters(layer.path))
        return [one for name in names for one in self._planned.get(name, ())]


def _turns(
    stacks: Iterable[Stack], order: Iterable[frozenset[str]], calibration: Calibration
) -> Iterator[tuple[frozenset[str], Sequence[Stack]]]:
    """Yield weights by the parameters whose inputs they want; first those that want none."""
    waiting: dict[str | None, list[Stack]] = defaultdict(list)
    for stack in stacks:
        waiting[calibration.shown_for(stack.members[0])].append(stack)
    yield frozenset(), waiting.pop(None, [])
    for names in order:
        yield names, [stack for name in sorted(names) for stack in waiting.pop(name, [])]
    yield frozenset(), [stack for each in waiting.values() for stack in each]
