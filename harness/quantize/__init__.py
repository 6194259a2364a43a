"""Turn source tensors into the tensors of a checkpoint, one at a time."""

from harness.quantize.stream import quantize

__all__ = ["quantize"]
