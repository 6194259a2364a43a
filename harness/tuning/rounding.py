"""A decoder layer that is in memory, with some of its units rounded as engines compute them.

Shapes: E weights, O output features, I input features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from harness.algorithms import SecondMoments
from harness.artifacts import CalibrationStats, PlannedLinear, QuantPlan
from harness.calibrate.weights import WeightRanges
from harness.formats import get_format, has_input_scale
from harness.models import (
    ResidentLayer,
    Source,
    StackedWeights,
    cut,
    experts_run,
    stored_dtype,
    tap_linears,
)
from harness.quantize import (
    ComputedWeights,
    ResidentQuantizer,
    Stored,
    input_groups,
    input_rounding,
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
        parameters = dict(layer.module.named_parameters(layer.path))
        with ExitStack() as undo:
            for option in options:
                stored = self._stored(layer, option, seen)
                weights = ComputedWeights(option.planned, stored, stored_dtype(self._source))
                for one in option.planned:
                    place = cut(
                        parameters[one.linear.parameter.tensor].detach(), one.linear.parameter
                    )
                    undo.callback(place.copy_, place.clone())
                    computed = weights.of(one.linear)
                    place.copy_(place if computed is None else computed)
            if any(one.input_format is not None for one in planned):
                scales = _input_scales(planned, seen, self._plan)
                undo.enter_context(experts_run(layer.module, "eager"))
                rounding = input_rounding(planned, scales, self._device)
                undo.enter_context(_tapped(layer, rounding))
            yield

    def _stored(self, layer: ResidentLayer, option: Option, seen: Seen) -> Stored:
        """Return what a checkpoint would store of a unit's weights."""
        part = replace(self._plan, quantized=option.planned)
        stacks = list(StackedWeights(self._source, part, as_they_run=True).of(layer))
        amax = WeightRanges(self._source, part, device=self._device).measure(stacks)
        return {
            f"{one.linear.name}.{suffix}": tensor_E[index]
            for members, stored_E, _ in ResidentQuantizer(part).quantize(stacks, amax, seen.moments)
            for suffix, tensor_E in stored_E.items()
            for index, one in enumerate(members)
        }


def _input_scales(
    planned: Sequence[PlannedLinear], seen: Seen, plan: QuantPlan
) -> Mapping[str, Tensor]:
    stats = CalibrationStats(
        weight_amax={}, input_amax=seen.amax, coverage=(), num_samples=0, num_tokens=0
    )
    amax = input_groups(replace(plan, quantized=tuple(planned)), stats)
    return {
        f"{one.linear.name}.input_scale": get_format(one.input_format).input_scale(
            amax[one.linear.group]
        )
        for one in planned
        if one.input_format is not None and has_input_scale(one.input_format)
    }


@contextmanager
def _tapped(
    layer: ResidentLayer, rounding: Callable[[str, int | None, Tensor], Tensor | None]
) -> Iterator[None]:
    """Round the inputs of a layer that stands in no model now."""

    def on_input(name: str, expert: int | None, x: Tensor) -> Tensor | None:
        return rounding(f"{layer.path}.{name}", expert, x)

    with torch.inference_mode(), tap_linears(layer.module, on_input):
        yield
