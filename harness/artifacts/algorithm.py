"""How the numbers of a weight are chosen, where several would do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from harness.artifacts.limits import STRICT


class Scales(StrEnum):
    """What the scales of NVFP4 blocks are made of."""

    MAX = "max"
    """A block's largest value."""
    MSE = "mse"
    """The least squared error of the block's weights."""
    FOUR_OVER_SIX = "four_over_six"
    """The same of two: the largest value becomes 6, or 4."""
    LOCAL_HESSIAN = "local_hessian"
    """The least error of the layer's output on the calibration's text, block by block."""


class Rounding(StrEnum):
    """How codes of NVFP4 weights are chosen."""

    NEAREST = "nearest"
    GPTQ = "gptq"
    """One input feature after another; what is left of the weight makes up for each error."""
    GPTAQ = "gptaq"
    """The same toward the outputs of the unquantized model, from the inputs that a quantized one
    has: what layers before lost and what rounding an input loses is made up for too."""


class Smoothing(StrEnum):
    """What is taken out of a layer's inputs before both are rounded, and put into its weights."""

    NONE = "none"
    AWQ = "awq"
    """Powers of two of each feature, which the norm before it and all that reads the norm take up:
    the unquantized model computes the same bits, and files have no tensor more."""


class InputRanges(StrEnum):
    """What the global scales of NVFP4 inputs are made of."""

    MAX = "max"
    """The largest value that calibration saw."""
    ACT_HEADROOM = "act_headroom"
    """How small the smallest blocks are, so that there is room above what was seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Algorithm:
    """How scales and codes of NVFP4 weights, and scales of NVFP4 inputs, are chosen."""

    __pydantic_config__ = STRICT
    FORMAT: ClassVar[str] = "nvfp4"
    """What it is for; other weights are not touched by it."""
    scales: Scales = Scales.MAX
    rounding: Rounding = Rounding.NEAREST
    damping: Annotated[float, Field(gt=0, le=1)] = 0.01
    """GPTQ's: share of each input feature's energy that is added to it."""
    smoothing: Smoothing = Smoothing.NONE
    inputs: InputRanges = InputRanges.MAX

    @property
    def chooses_numbers(self) -> bool:
        """Whether weights get other numbers than those of their blocks' largest values."""
        return (self.scales, self.rounding) != (Scales.MAX, Rounding.NEAREST)

    @property
    def needs_inputs(self) -> bool:
        """Whether it asks what a layer's inputs are like."""
        return self.needs_moments or self.smoothing is not Smoothing.NONE

    @property
    def needs_moments(self) -> bool:
        """Whether it asks how input features go together."""
        return self.needs_whole_inputs or self.scales is Scales.LOCAL_HESSIAN

    @property
    def needs_whole_inputs(self) -> bool:
        """Whether it asks how all input features go together, not those of a block alone."""
        return self.rounding is not Rounding.NEAREST

    @property
    def follows_quantized(self) -> bool:
        """Whether it asks what inputs are like behind quantized layers."""
        return self.rounding is Rounding.GPTAQ

    def __str__(self) -> str:
        """Return it as it is said."""
        rounded = "" if self.rounding is Rounding.NEAREST else f", rounded by {self.rounding}"
        if self.needs_whole_inputs and self.damping != Algorithm().damping:
            rounded += f" with damping {self.damping:g}"
        smoothed = "" if self.smoothing is Smoothing.NONE else f"smoothed by {self.smoothing}, "
        ranges = "" if self.inputs is InputRanges.MAX else f", input scales by {self.inputs}"
        return f"{smoothed}scales by {self.scales}{rounded}{ranges}"


PLAIN = Algorithm()
"""A block's largest value, and the nearest code."""
