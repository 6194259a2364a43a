"""Algorithms: which scales and codes of a format a weight gets, one file an algorithm."""

from harness.algorithms.apply import quantize_weights
from harness.algorithms.moments import SecondMoments

__all__ = ["SecondMoments", "quantize_weights"]
