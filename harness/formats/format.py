"""What every number format offers; one file a format implements it.

A format is pure arithmetic: tensors in, tensors out. It knows no model, no file and no engine.
Shapes: E weights of one shape (experts), O output features, I input features.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from harness.artifacts import TensorType

if TYPE_CHECKING:
    from torch import Tensor, dtype


INPUT_TENSORS: Mapping[str, TensorType] = {"input_scale": TensorType("F32", ())}
"""What a layer has whose inputs are rounded, besides its weight, by suffix."""


NO_EXPONENT = 255
"""The byte of a scale that is a power of two (E8M0) and no number."""


class Format(ABC):
    """How a weight matrix is stored and how the input of its layer is rounded."""

    name: ClassVar[str]
    """As recipes spell it."""
    block: ClassVar[int | None]
    """Weights of a row that share a scale; widths must be multiples of it. None: any width."""
    shares_group_scale: ClassVar[bool] = False
    """Whether dense layers that an engine fuses get one global scale.

    Projections of a routed expert always do, in every format that has one.
    """
    one_scale: ClassVar[str | None] = None
    """Suffix of the one number that engines have for layers which they fuse; None where they keep
    the scales of each."""
    served_multiple: ClassVar[int] = 1
    """What engines load has input widths that are multiples of it; and experts both widths."""
    for_experts: ClassVar[str | None] = None
    """The format that stores the same of routed experts, where engines want it otherwise."""
    is_widened_to_own_type: ClassVar[bool] = False
    """Whether engines that emulate the format round dequantized weights to the model's own type."""
    has_input_scale: ClassVar[bool] = False
    """Whether a layer whose inputs are rounded has `input_scale`; else engines take the scale from
    each input."""

    def quantize_weight(self, weight_OI: "Tensor", *, amax: float) -> "dict[str, Tensor]":
        """Return the tensors that store one weight; see `quantize_weights`."""
        stored = self.quantize_weights(weight_OI.unsqueeze(0), amax=[amax])
        return {suffix: tensor_E[0] for suffix, tensor_E in stored.items()}

    @abstractmethod
    def quantize_weights(
        self, weight_EOI: "Tensor", *, amax: "Sequence[float]"
    ) -> "dict[str, Tensor]":
        """Return the tensors that store each of E weights, by the suffix of their names, stacked.

        Args:
            weight_EOI: finite values of any floating type; E weights of one shape.
            amax: for each, the largest absolute value of those that share its global scale.
        """

    @abstractmethod
    def dequantize_weight(self, tensors: "Mapping[str, Tensor]", *, dtype: "dtype") -> "Tensor":
        """Return the weight [O, I] that an engine computes with."""

    def input_scale(self, amax: float) -> "Tensor":
        """Return the scale of a layer's input, a float32 scalar, from its largest value.

        Raises:
            NotImplementedError: the format has none.
        """
        raise NotImplementedError

    def qdq_input(self, x: "Tensor", *, input_scale: "Tensor | None") -> "Tensor":
        """Round `x` [..., I] to the format and back, in its own type, as engines do.

        Raises:
            NotImplementedError: the format is for weights alone.
        """
        raise NotImplementedError

    @abstractmethod
    def weight_tensors(self, shape: tuple[int, int]) -> Mapping[str, TensorType]:
        """Return what `quantize_weight` returns for a weight [O, I], by suffix."""

    def stored_tensors(
        self, shape: tuple[int, int], *, with_input: bool
    ) -> Mapping[str, TensorType]:
        """Return all tensors of a layer [O, I], `input_scale` among them if it has one."""
        return {**self.weight_tensors(shape), **(INPUT_TENSORS if with_input else {})}

    def required_suffixes(self, with_input: bool) -> tuple[str, ...]:  # noqa: FBT001 -- the one thing that varies
        """Return the names of all tensors that a layer must have."""
        return tuple(self.stored_tensors((1, self.block or 1), with_input=with_input))

    def stored_bytes(self, shape: tuple[int, int], *, with_input: bool) -> int:
        """Return the exact size of a layer [O, I] in a checkpoint, scalars included."""
        stored = self.stored_tensors(shape, with_input=with_input)
        return sum(tensor.num_bytes for tensor in stored.values())


def check_amax(amax: float) -> float:
    """Return `amax` if a scale can be made of it.

    Raises:
        ValueError: it is negative, infinite or NaN.
    """
    if not 0.0 <= amax < float("inf"):
        message = f"amax {amax} is no largest absolute value"
        raise ValueError(message)
    return amax


def given(input_scale: "Tensor | None") -> "Tensor":
    """Return the scale of an input that has one.

    Raises:
        ValueError: there is none, and none is ever made up.
    """
    if input_scale is None:
        message = "the input of a layer has no scale, and its format needs one"
        raise ValueError(message)
    return input_scale
