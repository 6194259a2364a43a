"""Largest absolute value of every weight that will be quantized.

It is taken from the files, not from the running model, so it needs the memory of one weight. This
is also the pass that finds a NaN: every weight that will be quantized is looked at, and a format
of 4 or 8 bits would turn a NaN into an ordinary number or poison a whole scale.

Shapes: O output features, I input features.
"""

import logging
import math

import torch

from harness.artifacts import QuantPlan
from harness.errors import CorruptWeightError
from harness.models import Source, TensorReader

_log = logging.getLogger("harness.calibrate")


def weight_amax(source: Source, plan: QuantPlan, *, device: str) -> dict[str, float]:
    """Return the largest absolute value of each planned weight, by Linear.name.

    It is exact: bf16 has no value that float does not have.

    Raises:
        CorruptWeightError: a weight holds NaN or infinity.
        ModelError: a weight cannot be read, or is stored quantized.
    """
    amax: dict[str, float] = {}
    with TensorReader(source) as reader:
        for planned in plan.quantized:
            linear = planned.linear
            weight_OI = reader.matrix(linear.source).to(device)
            low, high = torch.aminmax(weight_OI)
            largest = float(torch.maximum(-low, high))
            if not math.isfinite(largest):
                message = (
                    f"'{linear.source.tensor}' holds NaN or infinity (in '{linear.name}'). "
                    "Download the model again, or exclude the layer from quantization."
                )
                raise CorruptWeightError(message)
            amax[linear.name] = largest
    _log.info("calibrate: measured %d weights", len(amax))
    return amax
