"""What an engine computes with where a plan's weights and inputs stand in a running model.

Nothing here reads a checkpoint or asks an engine's loader: what would be stored is taken from
memory, dequantized as an engine that emulates the format does, and inputs are rounded on their way
into each layer.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from harness.artifacts import Linear, PlannedLinear
from harness.formats import get_format, has_input_scale, stored_format
from harness.formats.fp8 import requantized

Stored = Mapping[str, Tensor]
"""What a checkpoint would store of its quantized layers, by whole name."""


class ComputedWeights:
    """Gives the weight that an engine computes with, from what would be stored of it."""

    def __init__(
        self, planned: Iterable[PlannedLinear], stored: Stored, own_dtype: torch.dtype
    ) -> None:
        """Take what is stored of all planned layers; `own_dtype` is that of the model's files."""
        self._planned = {one.linear.name: one for one in planned}
        self._stored, self._own_dtype = stored, own_dtype
        self._merged: dict[str, Tensor] = {}
        """The largest FP8 scale of a dense layer that an engine fuses, by group."""
        for one in self._planned.values():
            if _is_requantized(one):
                scale = stored[f"{one.linear.name}.weight_scale"].float().reshape(())
                largest = self._merged.get(one.linear.group, scale)
                self._merged[one.linear.group] = torch.maximum(largest, scale)

    def of(self, linear: Linear) -> Tensor | None:
        """Return the weight [out, in] of a layer; None of one that stays as it is."""
        one = self._planned.get(linear.name)
        if one is None:
            return None
        form = stored_format(one.weight_format, is_routed=linear.is_routed)
        suffixes = form.required_suffixes(with_input=False)
        tensors = {suffix: self._stored[f"{linear.name}.{suffix}"] for suffix in suffixes}
        if _is_requantized(one):
            merged = self._merged[linear.group]
            tensors |= {"weight": requantized(tensors, merged), "weight_scale": merged}
        dtype = self._own_dtype if form.is_widened_to_own_type else torch.float32
        return form.dequantize_weight(tensors, dtype=dtype)


def input_rounding(
    planned: Iterable[PlannedLinear], stored: Stored, device: str
) -> Callable[[str, int | None, Tensor], Tensor | None]:
    """Return what `tap_linears` takes to round inputs as the plan says."""
    sites = {}
    for one in planned:
        if one.input_format is not None:
            scale = None
            if has_input_scale(one.input_format):
                scale = stored[f"{one.linear.name}.input_scale"].to(device)
            where = one.linear.parameter
            sites[where.tensor, where.expert] = get_format(one.input_format), scale

    def round_input(parameter: str, expert: int | None, x: Tensor) -> Tensor | None:
        form, scale = sites.get((parameter, expert), (None, None))
        return None if form is None else form.qdq_input(x, input_scale=scale)

    return round_input


def _is_requantized(one: PlannedLinear) -> bool:
    form = stored_format(one.weight_format, is_routed=one.linear.is_routed)
    return form.one_scale == "weight_scale" and not one.linear.is_routed
