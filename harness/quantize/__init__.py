"""Turn source tensors into the tensors of a checkpoint: a stream from files or from memory."""

from harness.quantize.resident import QuantizedStack, ResidentQuantizer, fetched
from harness.quantize.stream import quantize, read_unquantized, unquantized

__all__ = [
    "QuantizedStack",
    "ResidentQuantizer",
    "fetched",
    "quantize",
    "read_unquantized",
    "unquantized",
]
