"""Algorithms: which scales and codes of a format a weight gets, one file an algorithm."""

from harness.algorithms.apply import quantize_weights
from harness.algorithms.awq import choose_exponents, power_of_two
from harness.algorithms.headroom import Headroom
from harness.algorithms.moments import SecondMoments

__all__ = ["Headroom", "SecondMoments", "choose_exponents", "power_of_two", "quantize_weights"]
