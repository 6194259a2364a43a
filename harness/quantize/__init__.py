"""Turn source tensors into the tensors of a checkpoint: a stream from files or from memory."""

from harness.quantize.amax import input_groups
from harness.quantize.computed import ComputedWeights, Stored, input_rounding
from harness.quantize.resident import QuantizedStack, ResidentQuantizer, fetched
from harness.quantize.stream import quantize, read_unquantized, unquantized

__all__ = [
    "ComputedWeights",
    "QuantizedStack",
    "ResidentQuantizer",
    "Stored",
    "fetched",
    "input_groups",
    "input_rounding",
    "quantize",
    "read_unquantized",
    "unquantized",
]
