"""Algorithms in a format's name: `nvfp4_gptq` is `nvfp4` with GPTQ, `nvfp4_awq_mse_gptq` with all.

First comes what smooths, then what scales of inputs are made of, then those of weights, then how
codes are rounded. So each recipe is written once, and every algorithm goes with each that makes
NVFP4.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from harness.artifacts import PLAIN, Algorithm, InputRanges, Rounding, Scales, Smoothing

ENDINGS: Mapping[str, tuple[str, ...]] = {
    "smoothing": tuple(one.value for one in Smoothing if one is not Smoothing.NONE),
    "inputs": tuple(one.value for one in InputRanges if one is not InputRanges.MAX),
    "scales": tuple(one.value for one in Scales if one is not Scales.MAX),
    "rounding": tuple(one.value for one in Rounding if one is not Rounding.NEAREST),
}
"""In the order of a name; one of each, or none."""


class Named(NamedTuple):
    """What the name of a format says."""

    recipe: str
    """The shipped recipe."""
    algorithm: Algorithm


def split(name: str) -> Named:
    """Take the algorithm off a name; what has none is returned as it is."""
    recipe, rounding = _without(name, ENDINGS["rounding"])
    recipe, scales = _without(recipe, ENDINGS["scales"])
    recipe, inputs = _without(recipe, ENDINGS["inputs"])
    recipe, smoothing = _without(recipe, ENDINGS["smoothing"])
    algorithm = PLAIN
    if smoothing is not None:
        algorithm = replace(algorithm, smoothing=Smoothing(smoothing))
    if inputs is not None:
        algorithm = replace(algorithm, inputs=InputRanges(inputs))
    if scales is not None:
        algorithm = replace(algorithm, scales=Scales(scales))
    if rounding is not None:
        algorithm = replace(algorithm, rounding=Rounding(rounding))
    return Named(recipe, algorithm)


def in_order(name: str) -> str:
    """Return the name with the algorithms that it ends with in their order, one of each kind."""
    kinds = {ending: kind for kind, endings in ENDINGS.items() for ending in endings}
    found: dict[str, str] = {}
    while ending := next((one for one in kinds if name.endswith(f"_{one}")), None):
        if kinds[ending] in found:
            break
        name, found[kinds[ending]] = name.removesuffix(f"_{ending}"), ending
    return "_".join([name, *(found[kind] for kind in ENDINGS if kind in found)])


def endings() -> str:
    """Say what a name may end with: `_awq, then _act_headroom, then ...`."""
    return ", then ".join(
        " or ".join(f"_{one}" for one in alternatives) for alternatives in ENDINGS.values()
    )


def _without(name: str, endings: tuple[str, ...]) -> tuple[str, str | None]:
    for ending in endings:
        if name.endswith(f"_{ending}"):
            return name.removesuffix(f"_{ending}"), ending
    return name, None
