"""What a model consists of, and what will become of each of its weights.

The inventory is made from file headers and the model's structure alone; the plan is the
inventory after the recipe's rules. Neither holds a weight.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from harness.artifacts.algorithm import PLAIN, Algorithm
from harness.artifacts.recipe import KvFormat, Wording
from harness.reading import DTYPE_BITS

MIXED = "MIXED_PRECISION"
"""Scheme of a checkpoint whose layers have several."""
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


class TensorType(NamedTuple):
    """What a tensor will be, before there is one."""

    dtype: str
    """A key of DTYPE_BITS."""
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Return its size in a file."""
        return _num_bytes(self.dtype, self.shape)


@lru_cache
def _num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Asked several times for each of 100,000 tensors, which have few shapes."""
    return DTYPE_BITS[dtype] * math.prod(shape) // 8


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorHeader:
    """One tensor of a safetensors file, from its header."""

    shard: str
    """File name within the model's folder."""
    dtype: str
    """As in the header: `BF16`, `F32`, `F8_E4M3`, `U8`."""
    shape: tuple[int, ...]
    num_bytes: int
    offset: int
    """Of its first byte in the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """Where a weight [out, in] lies: a whole 2-D tensor, or rows of one expert of a 3-D tensor.

    It is `tensor[expert]`, transposed if it lies as [in, out], and each `step`-th row of that.
    """

    tensor: str
    """Name of the tensor, in the source files or in the running model."""
    expert: int | None = None
    """First index into a tensor of all experts; None where there is no such dimension."""
    rows: tuple[int, int] | None = None
    """First row and the row after the last; None for all rows."""
    step: int = 1
    """2 where the rows of gate and up take turns."""
    is_transposed: bool = False

    def of_expert(self) -> "Slice":
        """Return the same within the one expert's tensor."""
        return replace(self, expert=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """One weight matrix [out, in] that a checkpoint stores as one linear layer."""

    name: str
    """Its module name in the exported checkpoint (the source's spelling)."""
    source: Slice
    """Where its weight lies in the source files."""
    parameter: Slice
    """Where its weight lies in the running model."""
    shape: tuple[int, int]
    """Of the unpacked weight: (out, in)."""
    weight_quantizer: str
    """Such as `model.layers.0.mlp.experts.gate_up_proj_weight_quantizers.17`."""
    input_quantizer: str
    """Such as `model.layers.0.mlp.experts.gate_up_proj_input_quantizer`."""
    group: str
    """Linears of one group share their global scales, for the engine fuses them."""
    experts: str | None
    """Module path of the routed experts it belongs to; None for other layers."""
    expert: int | None
    """Index of its expert; None for other layers."""

    @property
    def is_routed(self) -> bool:
        """Whether it belongs to a routed expert."""
        return self.experts is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of a parameter that no linear layer covers and that is no tensor of the files."""

    source: Slice
    parameter: Slice


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """One attention layer that keeps keys and values."""

    name: str
    """Module path, such as `model.language_model.layers.3.self_attn`."""

    @property
    def k_quantizer(self) -> str:
        """Name of the quantizer of its keys, after rotary embedding."""
        return f"{self.name}.k_bmm_quantizer"

    @property
    def v_quantizer(self) -> str:
        """Name of the quantizer of its values."""
        return f"{self.name}.v_bmm_quantizer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """Every weight of a source model, by what it is."""

    model_type: str
    linears: tuple[Linear, ...]
    """Every weight that could be quantized, in the order of the model."""
    others: Mapping[str, str]
    """Every other parameter of the running model, to the source tensor that fills it."""
    pieces: tuple[Piece, ...]
    """Of the other parameters those that are put together of parts, such as experts' biases."""
    attentions: tuple[Attention, ...]
    unquantizable: Mapping[str, str]
    """Modules with a 2-D or larger weight that no rule may reach, to what they are: `router`,
    `embedding`, `left out of the running model` (draft heads)."""
    tensors: Mapping[str, TensorHeader]
    """Every tensor of the source files."""
    digest: str
    """sha256 of the source's weights and configuration."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedLinear:
    """A linear layer that will be quantized."""

    linear: Linear
    weight_format: str
    """A name in harness.formats."""
    input_format: str | None
    """The same for its input; None leaves activations as they are."""
    rule: str
    """The rule that decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excluded:
    """A module that stays as it is."""

    module: str
    """Its name in the exported checkpoint."""
    rule: str
    """The pattern that excluded it, or `no rule` or `not a linear layer`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleGroup:
    """Modules whose names differ in numbers only, with one treatment."""

    pattern: str
    """Their name with `*` for each number."""
    count: int
    format: str
    """`nvfp4 weights, nvfp4 inputs`, or `as it is`."""
    rule: str
    """What decided."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantPlan:
    """What will become of each weight."""

    scheme: str
    """One name for the checkpoint's formats, such as `NVFP4`; MIXED where layers have several."""
    kv_cache: str
    """A KvFormat."""
    quantized: tuple[PlannedLinear, ...]
    excluded: tuple[Excluded, ...]
    attentions: tuple[Attention, ...]
    digest: str
    """sha256 of all of the above and of the inventory."""
    wording: Wording = Wording.TODAY
    algorithm: Algorithm = PLAIN
    """Of NVFP4 weights."""

    @property
    def declares_kv(self) -> bool:
        """Return whether engines are told to store keys and values in `kv_cache`."""
        return self.kv_cache != KvFormat.NONE and self.wording is Wording.TODAY

    def by_source(self) -> Mapping[str, Sequence[PlannedLinear]]:
        """Return the planned layers by the source tensor that they come from."""
        found: dict[str, list[PlannedLinear]] = {}
        for planned in self.quantized:
            found.setdefault(planned.linear.source.tensor, []).append(planned)
        return found

    def quantized_groups(self) -> tuple[ModuleGroup, ...]:
        """Return what is quantized, by kind of module."""
        return _grouped(
            (
                q.linear.name,
                f"{q.weight_format} weights{self._chosen(q)}, {q.input_format or 'plain'} inputs",
                q.rule,
            )
            for q in self.quantized
        )

    def _chosen(self, planned: PlannedLinear) -> str:
        is_by_algorithm = self.algorithm != PLAIN and planned.weight_format == Algorithm.FORMAT
        return f" ({self.algorithm})" if is_by_algorithm else ""

    def excluded_groups(self) -> tuple[ModuleGroup, ...]:
        """Return what stays as it is, by kind of module."""
        return _grouped((e.module, "as it is", e.rule) for e in self.excluded)


def _grouped(modules: Iterable[tuple[str, str, str]]) -> tuple[ModuleGroup, ...]:
    counted = Counter((_NUMBER.sub("*", name), form, rule) for name, form, rule in modules)
    return tuple(
        ModuleGroup(pattern=pattern, count=count, format=form, rule=rule)
        for (pattern, form, rule), count in counted.items()
    )
