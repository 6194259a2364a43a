"""What every number format offers; one file a format implements it.

A format is pure arithmetic: tensors in, tensors out. It knows no model, no file and no engine.
Shapes: O output features, I input features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, dtype


class Format(ABC):
    """How a weight matrix is stored and how the input of its layer is rounded."""

    name: ClassVar[str]
    """As recipes spell it."""
    block: ClassVar[int | None]
    """Weights of a row that share a scale; widths must be multiples of it. None: any width."""
    weight_bits: ClassVar[float]
    """Stored bits a weight, block scales included, scalars not."""
    num_matrices: ClassVar[int]
    """How many of the required tensors are matrices; the others are float32 scalars."""
    shares_group_scale: ClassVar[bool]
    """Whether dense layers that an engine fuses get one global scale.

    Projections of a routed expert always do, in every format.
    """

    @abstractmethod
    def quantize_weight(self, weight_OI: "Tensor", *, amax: float) -> "dict[str, Tensor]":
        """Return the tensors that store `weight_OI`, by the suffix of their names.

        Args:
            weight_OI: finite values of any floating type.
            amax: largest absolute value of the weights that share the global scale.
        """

    @abstractmethod
    def dequantize_weight(self, tensors: "Mapping[str, Tensor]", *, dtype: "dtype") -> "Tensor":
        """Return the weight [O, I] that an engine computes with."""

    @abstractmethod
    def input_scale(self, amax: float) -> "Tensor":
        """Return the scale of a layer's input, a float32 scalar, from its largest value."""

    @abstractmethod
    def qdq_input(self, x: "Tensor", *, input_scale: "Tensor") -> "Tensor":
        """Round `x` [..., I] to the format and back, in its own type, as engines do."""

    @abstractmethod
    def required_suffixes(self, with_input: bool) -> tuple[str, ...]:  # noqa: FBT001 -- the one thing that varies
        """Return the tensors a layer must have, `input_scale` among them if inputs are rounded."""

    def stored_bytes(self, shape: tuple[int, int], *, with_input: bool) -> int:
        """Return the exact size of a layer [O, I] in a checkpoint, scalars included."""
        num_scalars = len(self.required_suffixes(with_input)) - self.num_matrices
        return int(shape[0] * shape[1] * self.weight_bits) // 8 + 4 * num_scalars


def check_amax(amax: float) -> float:
    """Return `amax` if a scale can be made of it.

    Raises:
        ValueError: it is negative, infinite or NaN.
    """
    if not 0.0 <= amax < float("inf"):
        message = f"amax {amax} is no largest absolute value"
        raise ValueError(message)
    return amax
