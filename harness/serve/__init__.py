"""Serve a checkpoint, quantized or not, and say what its deployment really computes."""

from harness.serve.engines import check_engine, serve
from harness.serve.reference import Served

__all__ = ["Served", "check_engine", "serve"]
