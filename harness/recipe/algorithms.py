"""Algorithms in a format's name: `nvfp4_gptq` is `nvfp4` with GPTQ, `nvfp4_awq_mse_gptq` with all.

First comes what smooths, then what scales are made of, then how codes are rounded. So each recipe
is written once, and every algorithm goes with each that makes NVFP4.
"""

from dataclasses import replace
from typing import NamedTuple

from harness.artifacts import PLAIN, Algorithm, Rounding, Scales, Smoothing

SMOOTHINGS = tuple(one.value for one in Smoothing if one is not Smoothing.NONE)
SCALES = tuple(one.value for one in Scales if one is not Scales.MAX)
ROUNDINGS = tuple(one.value for one in Rounding if one is not Rounding.NEAREST)


class Named(NamedTuple):
    """What the name of a format says."""

    recipe: str
    """The shipped recipe."""
    algorithm: Algorithm


def split(name: str) -> Named:
    """Take the algorithm off a name; what has none is returned as it is."""
    recipe, rounding = _without(name, ROUNDINGS)
    recipe, scales = _without(recipe, SCALES)
    recipe, smoothing = _without(recipe, SMOOTHINGS)
    algorithm = PLAIN
    if smoothing is not None:
        algorithm = replace(algorithm, smoothing=Smoothing(smoothing))
    if scales is not None:
        algorithm = replace(algorithm, scales=Scales(scales))
    if rounding is not None:
        algorithm = replace(algorithm, rounding=Rounding(rounding))
    return Named(recipe, algorithm)


def _without(name: str, endings: tuple[str, ...]) -> tuple[str, str | None]:
    for ending in endings:
        if name.endswith(f"_{ending}"):
            return name.removesuffix(f"_{ending}"), ending
    return name, None
