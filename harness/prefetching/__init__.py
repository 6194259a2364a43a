"""Collect what a machine without a network needs, and show that it is enough."""

from harness.prefetching.collect import collect
from harness.prefetching.rehearse import rehearse

__all__ = ["collect", "rehearse"]
