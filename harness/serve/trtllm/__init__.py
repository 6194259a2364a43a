"""The `trtllm` engine: a folder served by a `trtllm-serve` process, for generated answers."""

from harness.serve.trtllm.engine import ENGINE

__all__ = ["ENGINE"]
