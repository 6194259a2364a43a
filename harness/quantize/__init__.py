"""Turn source tensors into the tensors of a checkpoint: a stream from files or from memory."""

from harness.quantize.resident import QuantizedStack, ResidentQuantizer, fetched
from harness.quantize.stream import as_they_are, quantize, untouched

__all__ = ["QuantizedStack", "ResidentQuantizer", "as_they_are", "fetched", "quantize", "untouched"]
