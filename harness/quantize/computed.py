"""What an engine computes with where a plan's weights and inputs stand in a running model.

Nothing here reads a checkpoint or asks an engine's loader: what would be stored is taken from
memory, dequantized as an engine that emulates the format does, and inputs are rounded on their way
into each layer.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

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


class InputRounding:
    """Rounds inputs as the plan says; its methods are what `tap_linears` takes."""

    def __init__(self, planned: Iterable[PlannedLinear], stored: Stored, device: str) -> None:
        """Take what is stored of the scales of inputs."""
        self._sites: dict[str, dict[int | None, _Site]] = defaultdict(dict)
        kinds: dict[str, set[tuple[str, float | None]]] = defaultdict(set)
        for one in planned:
            if (name := one.input_format) is not None:
                scale = stored[f"{one.linear.name}.input_scale"] if has_input_scale(name) else None
                where = one.linear.parameter
                on_device = None if scale is None else scale.to(device)
                self._sites[where.tensor][where.expert] = _Site(name, on_device)
                kinds[where.tensor].add((name, None if scale is None else float(scale)))
        self._alike = {name for name, found in kinds.items() if len(found) == 1}
        """Parameters whose inputs are all rounded in one way, so far as they are."""

    def rounded(self, parameter: str, expert: int | None, input_NI: Tensor) -> Tensor | None:
        """Return what the input of a weight becomes; None where it stays as it is."""
        site = self._sites.get(parameter, {}).get(expert)
        return None if site is None else site.rounded(input_NI)

    def rounded_together(self, parameter: str, ends_E: Tensor, input_NI: Tensor) -> Tensor | None:
        """Return the same of all experts' rows, which end at `ends_E`."""
        sites = self._sites.get(parameter)
        if not sites:
            return None
        if parameter in self._alike and len(sites) == len(ends_E):
            return next(iter(sites.values())).rounded(input_NI)
        found_NI = input_NI.clone()
        for expert, (begin, end) in enumerate(pairwise([0, *ends_E.tolist()])):
            site = sites.get(expert)
            if site is not None and begin < end:
                found_NI[begin:end] = site.rounded(input_NI[begin:end])
        return found_NI


class _Site(NamedTuple):
    """What one weight's input is rounded to."""

    format: str
    scale: Tensor | None

    def rounded(self, input_NI: Tensor) -> Tensor:
        return get_format(self.format).qdq_input(input_NI, input_scale=self.scale)


def _is_requantized(one: PlannedLinear) -> bool:
    form = stored_format(one.weight_format, is_routed=one.linear.is_routed)
    return form.one_scale == "weight_scale" and not one.linear.is_routed
