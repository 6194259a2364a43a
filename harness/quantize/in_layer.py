"""A decoder layer that is in memory, computing as engines do with what is stored of it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from harness.artifacts import CalibrationStats, PlannedLinear, QuantPlan
from harness.formats import get_format, has_input_scale
from harness.models import ResidentLayer, cut, tap_linears
from harness.quantize.amax import input_groups
from harness.quantize.computed import ComputedWeights, InputRounding, Stored
from harness.quantize.resident import QuantizedStack


def stored_of(quantized: Iterable[QuantizedStack]) -> Stored:
    """Return what a checkpoint would store of quantized weights, by whole name."""
    return {
        f"{one.linear.name}.{suffix}": tensor_E[index]
        for members, stored_E, _ in quantized
        for suffix, tensor_E in stored_E.items()
        for index, one in enumerate(members)
    }


def input_scales(
    planned: Sequence[PlannedLinear], amax: Mapping[str, float], plan: QuantPlan
) -> Stored:
    """Return the scales of the inputs of some layers.

    Args:
        planned: whole groups of layers that engines fuse.
        amax: largest inputs by quantizer.
        plan: which they are of.

    Raises:
        RejectedError: no scale can be made of what an input showed.
    """
    stats = CalibrationStats(
        weight_amax={}, input_amax=amax, coverage=(), num_samples=0, num_tokens=0
    )
    by_group = input_groups(replace(plan, quantized=tuple(planned)), stats)
    return {
        f"{one.linear.name}.input_scale": get_format(one.input_format).input_scale(
            by_group[one.linear.group]
        )
        for one in planned
        if one.input_format is not None and has_input_scale(one.input_format)
    }


def hold_as_stored(
    layer: ResidentLayer,
    planned: Sequence[PlannedLinear],
    stored: Stored,
    own_dtype: torch.dtype,
) -> None:
    """Let the layer hold the weights that engines compute with.

    Args:
        layer: in memory.
        planned: some of its weights.
        stored: what a checkpoint would hold of these.
        own_dtype: of the model's files.
    """
    weights = ComputedWeights(planned, stored, own_dtype)
    for one, place in _places(layer, planned):
        computed = weights.of(one.linear)
        place.copy_(place if computed is None else computed)


@contextmanager
def holding_as_stored(
    layer: ResidentLayer,
    planned: Sequence[PlannedLinear],
    stored: Stored,
    own_dtype: torch.dtype,
) -> Iterator[None]:
    """Let it hold them while the context lasts."""
    before = [(place, place.clone()) for _, place in _places(layer, planned)]
    hold_as_stored(layer, planned, stored, own_dtype)
    try:
        yield
    finally:
        for place, weight in before:
            place.copy_(weight)


def _places(
    layer: ResidentLayer, planned: Sequence[PlannedLinear]
) -> Iterator[tuple[PlannedLinear, Tensor]]:
    """Yield each weight with where it lies."""
    parameters = dict(layer.module.named_parameters(layer.path))
    for one in planned:
        where = one.linear.parameter
        yield one, cut(parameters[where.tensor].detach(), where)


@contextmanager
def inputs_as_rounded(
    layer: ResidentLayer, planned: Sequence[PlannedLinear], scales: Stored, device: str
) -> Iterator[None]:
    """Round the inputs of a layer's weights on their way into them, in the context."""
    if all(one.input_format is None for one in planned):
        yield
        return
    rounding = InputRounding(planned, scales, device)

    def on_input(name: str, expert: int | None, input_NI: Tensor) -> Tensor | None:
        return rounding.rounded(f"{layer.path}.{name}", expert, input_NI)

    def on_grouped(name: str, ends_E: Tensor, input_NI: Tensor) -> Tensor | None:
        return rounding.rounded_together(f"{layer.path}.{name}", ends_E, input_NI)

    with torch.inference_mode(), tap_linears(layer.module, on_input, on_grouped):
        yield
