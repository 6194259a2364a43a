"""Which largest value each layer's scales are made of.

Engines fuse layers when they load them (q/k/v, gate/up) and then have one global scale for all,
so the members of a group must agree. A group's amax is the largest of its quantized members.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.artifacts import CalibrationStats, PlannedLinear, QuantPlan
from harness.errors import ReasonCode, RejectedError
from harness.formats import get_format, has_input_scale


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightGroups:
    """Largest weights by group, and what single layers had before."""

    by_group: Mapping[str, float]
    own: Mapping[str, float]

    @classmethod
    def of(cls, planned: Iterable[PlannedLinear], own: Mapping[str, float]) -> "WeightGroups":
        """Merge the ranges of planned layers, by Linear.name, over the members of each group.

        Layers that `own` does not have are left out.
        """
        by_group: dict[str, float] = {}
        for one in planned:
            linear = one.linear
            if linear.name in own:
                largest = max(own[linear.name], by_group.get(linear.group, 0.0))
                by_group[linear.group] = largest
        return cls(by_group=by_group, own=own)

    def for_weight(self, planned: PlannedLinear) -> float:
        """Return the amax of the weight's global scale.

        Dense FP8 layers keep their own, as the peer has it: the engine brings a fused layer to
        its largest scale when it loads it. One that is all zeros takes its group's, for scale 1
        beside them would be that largest scale.

        Raises:
            RejectedError: calibration never saw it.
        """
        linear = planned.linear
        own = look_up(self.own, linear.name)
        if linear.is_routed or get_format(planned.weight_format).shares_group_scale:
            return self.by_group[linear.group]
        return own or self.by_group[linear.group]


def input_groups(plan: QuantPlan, stats: CalibrationStats) -> Mapping[str, float]:
    """Return the largest inputs by group.

    Raises:
        RejectedError: calibration never saw a planned layer, or saw only zeros.
    """
    inputs: dict[str, float] = {}
    for planned in plan.quantized:
        linear = planned.linear
        if has_input_scale(planned.input_format):
            seen = usable_range(stats.input_amax, linear.input_quantizer)
            inputs[linear.group] = max(seen, inputs.get(linear.group, 0.0))
    return inputs


def usable_range(amax: Mapping[str, float], name: str) -> float:
    """Return the range that calibration measured for an input quantizer.

    The peer gives an input that was always zero a scale of its own choice; here it is none.

    Raises:
        RejectedError: it measured nothing, or nothing that a scale can be made of.
    """
    seen = look_up(amax, name)
    if not 0 < seen < math.inf:
        message = (
            f"calibration saw {seen} as the largest input of '{name}', of which no scale can be "
            "made. Exclude the layer, or calibrate with other data."
        )
        raise RejectedError(message, reason=ReasonCode.UNUSABLE_RANGE)
    return seen


def look_up(amax: Mapping[str, float], name: str) -> float:
    """Return what calibration measured for `name`; there is no default.

    Raises:
        RejectedError: it measured nothing.
    """
    if name not in amax:
        message = f"calibration never saw '{name}', which is to be quantized. Calibrate again."
        raise RejectedError(message, reason=ReasonCode.QUANTIZER_NOT_OBSERVED)
    return amax[name]
