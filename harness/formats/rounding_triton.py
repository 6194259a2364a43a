"""What kernels in Triton round with, to the bit as the plain functions do."""

import triton
from triton import language as tl

SMALLEST, LARGEST = 2.0**-80, 2.0**14
"""Largest values of a weight, below and above which steps or quotients come near the subnormal
numbers: not for here."""


@triton.jit
def power(x, least: tl.constexpr):
    """Return the power of two in the exponent of a positive number, or `least` if that is more."""
    bits = x.to(tl.int32, bitcast=True) & 0x7F800000
    return tl.maximum(bits.to(tl.float32, bitcast=True), least)


@triton.jit
def divided(x, divisor, inverse):
    """Return x / divisor, correctly rounded, from the correctly rounded inverse.

    The product is put right with its exact remainder (Markstein 1990).
    """
    quotient = x * inverse
    return tl.math.fma(tl.math.fma(-quotient, divisor, x), inverse, quotient)


@triton.jit
def to_e4m3(x):
    """Round values from 0 to 448 to nearest even; return the code and its value.

    Written out, because a cast is not rounded the same by every version and by the interpreter.
    Steps are an eighth of a number's power of two, 2^-6 at least: 2^20 powers are added, whose
    float32 steps are the same, and 3 more to make the sum below end in the code.
    """
    above = power(x, 0.015625)
    sum = tl.math.fma(above, 1048579.0, x)  # noqa: A001
    bits = sum.to(tl.int32, bitcast=True)
    code = (bits + (bits >> 20)) & 0x7F
    return code.to(tl.uint8), tl.math.fma(above, -1048579.0, sum)


@triton.jit
def nearest_e2m1(x):
    """Return the nearest value of E2M1, of two the one with the even code, and 6 at most.

    As for E4M3, where steps are half a number's power of two, 1 at least.
    """
    size = tl.minimum(tl.abs(x), 6.0)
    above = power(size, 1.0)
    rounded = tl.math.fma(above, -4194304.0, tl.math.fma(above, 4194304.0, size))
    return tl.where(x < 0.0, -rounded, rounded)
