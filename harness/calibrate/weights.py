"""Largest absolute value of every weight that will be quantized.

It is taken where a weight is in memory anyway, and read from the files where it is not. This is
also the pass that finds a NaN: every weight that will be quantized is looked at, and a format of
4 or 8 bits would turn a NaN into an ordinary number or poison a whole scale.

Shapes: E weights of one shape, O output features, I input features.
"""

import logging
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from harness.artifacts import PlannedLinear, QuantPlan
from harness.errors import CorruptWeightError
from harness.models import Source, Stack, TensorReader
from harness.ranks import Ranks

_log = logging.getLogger("harness.calibrate")


class WeightRanges:
    """Collects the range of each planned weight, from layers that are in memory and from files."""

    def __init__(self, source: Source, plan: QuantPlan, *, device: str) -> None:
        """Take the plan; nothing is read yet."""
        self._source, self._plan, self._device = source, plan, device
        self._amax: dict[str, float] = {}

    def measure(self, stacks: Iterable[Stack]) -> Mapping[str, float]:
        """Measure weights that are in memory; return the largest value of each, by Linear.name.

        Raises:
            CorruptWeightError: a weight holds NaN or infinity.
        """
        names: list[PlannedLinear] = []
        found: list[Tensor] = []
        for members, weight_EOI in stacks:
            names += members
            low_E, high_E = torch.aminmax(weight_EOI.flatten(1), dim=1)
            found.append(torch.maximum(-low_E, high_E))
        values = torch.cat(found).tolist() if found else []
        amax = {
            one.linear.name: _finite(one, value) for one, value in zip(names, values, strict=True)
        }
        self._amax |= amax
        return amax

    def merge_ranks(self, ranks: Ranks) -> None:
        """Let each rank have what all of them have seen."""
        for one in ranks.all_gather(self._amax):
            self._amax |= one

    def complete(self) -> Mapping[str, float]:
        """Read what was not seen, and return the range of every planned weight by Linear.name.

        Raises:
            CorruptWeightError: a weight holds NaN or infinity.
            ModelError: a weight cannot be read, or is stored quantized.
        """
        unseen = [one for one in self._plan.quantized if one.linear.name not in self._amax]
        self._amax |= _read(self._source, unseen, device=self._device)
        _log.info("calibrate: measured %d weights", len(self._amax))
        # In the order of the plan, so that the file does not depend on the way it was made.
        return {one.linear.name: self._amax[one.linear.name] for one in self._plan.quantized}


def _read(source: Source, planned: Iterable[PlannedLinear], *, device: str) -> dict[str, float]:
    amax: dict[str, float] = {}
    with TensorReader(source) as reader:
        for one in planned:
            weight_OI = reader.matrix(one.linear.source).to(device)
            low, high = torch.aminmax(weight_OI)
            amax[one.linear.name] = _finite(one, float(torch.maximum(-low, high)))
    return amax


def _finite(one: PlannedLinear, largest: float) -> float:
    if not math.isfinite(largest):
        linear = one.linear
        message = (
            f"'{linear.source.tensor}' holds NaN or infinity (in '{linear.name}'). "
            "Download the model again, or exclude the layer from quantization."
        )
        raise CorruptWeightError(message)
    return largest
