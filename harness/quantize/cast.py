"""Weights that the source stores in MXFP4 and the plan wants in NVFP4: cast, not rounded again."""

from collections import defaultdict
from collections.abc import Mapping

from torch import Tensor

from harness.artifacts import PlannedLinear, QuantPlan, Slice
from harness.formats.cast import cast_to_nvfp4, largest_exponent
from harness.models import Source, TensorReader

_TO = "nvfp4"


class Casts:
    """Makes the stored tensors of such weights."""

    def __init__(self, source: Source, plan: QuantPlan, reader: TensorReader) -> None:
        """Find them; nothing is read."""
        self._reader = reader
        self._groups: dict[str, list[Slice]] = defaultdict(list)
        for planned in plan.quantized:
            linear = planned.linear
            if planned.weight_format == _TO and linear.source.tensor in source.packed:
                self._groups[linear.group].append(linear.source)
        self._largest: dict[str, int] = {}

    def of(self, planned: PlannedLinear, weight_OI: Tensor) -> Mapping[str, Tensor] | None:
        """Return what is stored of a weight; None for one that is quantized as others are."""
        group = planned.linear.group
        exponents = self._reader.exponents(planned.linear.source)
        if group not in self._groups or exponents is None:
            return None
        if group not in self._largest:
            every = (self._reader.exponents(one) for one in self._groups[group])
            self._largest[group] = max(largest_exponent(one) for one in every if one is not None)
        return cast_to_nvfp4(weight_OI, exponents.to(weight_OI.device), self._largest[group])
