"""A decoder layer that is in memory, with some of its units rounded as engines compute them.

Shapes: E weights, O output features, I input features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

from harness.algorithms import SecondMoments
from harness.artifacts import PlannedLinear, QuantPlan
from harness.calibrate.weights import WeightRanges
from harness.models import ResidentLayer, Source, StackedWeights, stored_dtype
from harness.quantize import (
    ResidentQuantizer,
    Stored,
    holding_as_stored,
    input_scales,
    inputs_as_rounded,
    stored_of,
)
from harness.tuning.units import Option


class Seen(NamedTuple):
    """What the unquantized stream has shown of the inputs of a layer."""

    amax: Mapping[str, float]
    """Largest values, by input quantizer."""
    moments: Callable[[Sequence[PlannedLinear]], SecondMoments]


class Rounding:
    """Rounds units of one model."""

    def __init__(self, source: Source, plan: QuantPlan, device: str) -> None:
        """Take the model; the plan's algorithm makes NVFP4 weights."""
        self._source, self._plan, self._device = source, plan, device

    @contextmanager
    def of(self, layer: ResidentLayer, options: Sequence[Option], seen: Seen) -> Iterator[None]:
        """Let the layer compute with units in these formats while the context lasts.

        Raises:
            CorruptWeightError: a weight holds NaN or infinity.
            RejectedError: no scale can be made of what an input showed.
        """
        planned = [one for option in options for one in option.planned]
        if not planned:
            yield
            return
        with ExitStack() as undo:
            for option in options:
                stored, own = self._stored(layer, option, seen), stored_dtype(self._source)
                undo.enter_context(holding_as_stored(layer, option.planned, stored, own))
            scales = input_scales(planned, seen.amax, self._plan)
            undo.enter_context(inputs_as_rounded(layer, planned, scales, self._device))
            yield

    def _stored(self, layer: ResidentLayer, option: Option, seen: Seen) -> Stored:
        """Return what a checkpoint would store of a unit's weights."""
        part = replace(self._plan, quantized=option.planned)
        stacks = list(StackedWeights(self._source, part, as_they_run=True).of(layer))
        amax = WeightRanges(self._source, part, device=self._device).measure(stacks)
        return stored_of(ResidentQuantizer(part).quantize(stacks, amax, seen.moments))
