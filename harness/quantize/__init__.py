"""Turn source tensors into the tensors of a checkpoint: a stream from files or from memory."""

from harness.quantize.amax import input_groups
from harness.quantize.computed import ComputedWeights, InputRounding, Stored
from harness.quantize.in_layer import (
    hold_as_stored,
    holding_as_stored,
    input_scales,
    inputs_as_rounded,
    stored_of,
)
from harness.quantize.resident import QuantizedStack, ResidentQuantizer, fetched
from harness.quantize.stream import quantize, read_unquantized, unquantized

__all__ = [
    "ComputedWeights",
    "InputRounding",
    "QuantizedStack",
    "ResidentQuantizer",
    "Stored",
    "fetched",
    "hold_as_stored",
    "holding_as_stored",
    "input_groups",
    "input_scales",
    "inputs_as_rounded",
    "quantize",
    "read_unquantized",
    "stored_of",
    "unquantized",
]
