"""Turn source tensors into the tensors of a checkpoint: a stream from files or from memory."""

from harness.quantize.resident import ResidentQuantizer
from harness.quantize.stream import quantize, untouched

__all__ = ["ResidentQuantizer", "quantize", "untouched"]
