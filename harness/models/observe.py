"""See, and where wanted replace, what flows into a running model's layers.

No module is changed and no hook is hung on one. Linear layers are seen where all of them meet,
in torch.nn.functional.linear: nn.Linear calls it with its parameter, and routed experts call it
with one expert's slice of a 3-D parameter as long as they run eagerly. By default transformers runs
experts through a grouped kernel, which calls no linear function at all, and a calibration that is
not told so sees nothing. So `experts_run` decides how they run: one by one, or all of a layer in
one grouped product, which is seen in torch._grouped_mm with the place where each expert's rows end.
"""

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.models.decoder import decoder_layers
from harness.models.experts import GROUPED, register_grouped
from harness.models.mixed_types import PRODUCTS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

OnInput = Callable[[str, int | None, Tensor], Tensor | None]
"""Takes the name of the weight's parameter, the expert (None for 2-D parameters) and the input;
returns what replaces the input, or None."""

OnGrouped = Callable[[str, Tensor, Tensor], Tensor | None]
"""Takes the name of a 3-D parameter, where each expert's rows end, and all rows by expert; returns
what replaces the rows, or None."""

OnKv = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor] | None]
"""Takes the attention's module name, keys and values; returns what replaces them, or None."""

_PREFIX, _SDPA, _EAGER = "harness_tapped_", "sdpa", "eager"
_TAPPED = (_SDPA, _EAGER)


@contextmanager
def experts_run(model: nn.Module, how: str) -> Iterator[None]:
    """Let routed experts run one by one (`eager`) or all in one product (`grouped`) in the context.

    Families whose experts know no grouped way run theirs one by one in both.
    """
    register_grouped()
    implementation = {"eager": "eager", "grouped": GROUPED}[how]
    configs = configurations(model)
    before = [config._experts_implementation for config in configs]  # noqa: SLF001  # no public one
    try:
        for config in configs:
            config._experts_implementation = implementation  # noqa: SLF001  # as above
        yield
    finally:
        # Setting an outer configuration sets its inner ones too, so the outer ones come first.
        for config, setting in zip(configs, before, strict=True):
            config._experts_implementation = setting  # noqa: SLF001  # as above


def configurations(model: nn.Module) -> list["PreTrainedConfig"]:
    """Return every configuration that a module holds or that is nested in one, outer first."""
    from transformers import PreTrainedConfig  # noqa: PLC0415 -- takes seconds

    found: dict[int, PreTrainedConfig] = {}
    waiting = [vars(module).get("config") for module in model.modules()]
    while waiting:
        config = waiting.pop(0)
        if isinstance(config, PreTrainedConfig) and id(config) not in found:
            found[id(config)] = config
            waiting.extend(vars(config).values())
    return list(found.values())


class _Weight(NamedTuple):
    """A parameter that may be used as the weight of a product."""

    name: str
    begin: int
    """Its first byte in memory, and the byte after its last."""
    end: int
    expert_bytes: int | None
    """Bytes from one expert to the next; None for 2-D parameters."""


class _Weights:
    """Parameters by where they lie; several may share a block of memory."""

    def __init__(self, parameters: Iterable[_Weight]) -> None:
        self._found = sorted(parameters, key=lambda one: one.begin)
        self._begins = [one.begin for one in self._found]

    def of(self, weight: Tensor) -> tuple[_Weight, int | None] | None:
        """Return the parameter that `weight` is or is a part of, and the expert it begins in."""
        begin = weight.data_ptr()
        index = bisect_right(self._begins, begin) - 1
        if index < 0 or begin >= self._found[index].end:
            return None
        one = self._found[index]
        expert = (begin - one.begin) // one.expert_bytes if one.expert_bytes else None
        return one, expert


class _LinearTap(TorchFunctionMode):
    """Passes the input of every product with a parameter of a model through `on_input`."""

    def __init__(
        self,
        parameters: _Weights,
        on_input: OnInput,
        on_grouped: OnGrouped | None,
    ) -> None:
        super().__init__()
        self._parameters = parameters
        self._on_input = on_input
        self._on_grouped = on_grouped

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        del types
        if func is nn.functional.linear:
            return self._linear(*args, **(kwargs or {}))
        if func in PRODUCTS and len(args) == 2 and not kwargs:  # noqa: PLR2004  # two factors
            return func(*self._factors(*args))
        if func is torch._grouped_mm and self._on_grouped is not None:  # noqa: SLF001  # no public one
            return self._grouped(self._on_grouped, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:  # noqa: A002  # torch's name for it
        return nn.functional.linear(self._seen(input, weight), weight, bias)

    def _factors(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of a matrix product, one of which may be a weight."""
        if self._parameters.of(right) is not None:
            return self._seen(left, right), right
        if self._parameters.of(left) is not None and right.ndim > 1:
            return left, self._seen(right.mT, left).mT
        return left, right

    def _seen(self, input: Tensor, weight: Tensor) -> Tensor:  # noqa: A002  # as above
        """Show an input [..., in] of a weight, and return what takes its place."""
        found = self._parameters.of(weight)
        if found is None:
            return input
        parameter, expert = found
        if expert is not None and weight.ndim > 2:  # noqa: PLR2004  # all experts' matrices at once
            each = [self._seen_rows(parameter.name, expert + i, x) for i, x in enumerate(input)]
            return torch.stack(each)
        replaced = self._on_input(parameter.name, expert, input)
        return input if replaced is None else replaced

    def _seen_rows(self, name: str, expert: int, input: Tensor) -> Tensor:  # noqa: A002  # as above
        """Show the rows that reach an expert: others are zero where all experts run on all."""
        is_row = input.any(-1)
        if not is_row.any():
            return input
        replaced = self._on_input(name, expert, input[is_row])
        if replaced is None:
            return input
        whole = input.clone()
        whole[is_row] = replaced
        return whole

    def _grouped(
        self,
        on_grouped: OnGrouped,
        rows: Tensor,
        weight: Tensor,
        offs: Tensor | None = None,
        **options: Any,  # noqa: ANN401  # torch's
    ) -> Tensor:
        found = self._parameters.of(weight)
        if found is not None and found[1] is not None and offs is not None:
            replaced = on_grouped(found[0].name, offs, rows)
            rows = rows if replaced is None else replaced
        product: Tensor = torch._grouped_mm(rows, weight, offs, **options)  # noqa: SLF001  # no public one
        return product


@contextmanager
def tap_linears(
    model: nn.Module, on_input: OnInput, on_grouped: OnGrouped | None = None
) -> Iterator[None]:
    """Pass the input of every product with a parameter of `model` through `on_input`.

    Most are linear functions; some families multiply the other way round, or all experts at once.
    Grouped products of a 3-D parameter are shown to `on_grouped`, if one is given.

    Parameters are known by their place in memory when the context is entered: do not move the model
    to another device inside it.
    """
    parameters: dict[int, _Weight] = {}
    for path, module in model.named_modules():
        for leaf, value in module.named_parameters(recurse=False):
            pointer = 0 if value.is_meta else value.data_ptr()
            # Of tied parameters the linear layer's name is wanted, not the embedding's.
            if pointer and (pointer not in parameters or isinstance(module, nn.Linear)):
                parameters[pointer] = _Weight(
                    name=f"{path}.{leaf}" if path else leaf,
                    begin=pointer,
                    end=pointer + value.nbytes,
                    expert_bytes=value[0].nbytes if value.ndim > 2 else None,  # noqa: PLR2004  # a matrix has two
                )
    with _LinearTap(_Weights(parameters.values()), on_input, on_grouped):
        yield


_attention_taps: dict[int, tuple[str, OnKv]] = {}
"""Attention modules that are tapped now, by id; transformers has one registry a process too."""


@contextmanager
def tap_attention(model: "PreTrainedModel", on_kv: OnKv) -> Iterator[None]:
    """Pass keys and values, after rotary embedding, of the decoder's attention through `on_kv`.

    With a cache they are all the keys and values so far. The attention itself stays torch's scaled
    dot product attention, or the family's own where it has no other.
    """
    for name in _TAPPED:
        _register_tapped(name)
    layers = decoder_layers(model)
    names = {id(module): name for name, module in model.named_modules()}
    taps = {id(module): (names[id(module)], on_kv) for module in layers.modules()}
    configs = configurations(layers)
    before = [config._attn_implementation for config in configs]  # noqa: SLF001  # no public one
    try:
        _attention_taps.update(taps)
        for config, implementation in zip(configs, before, strict=True):
            own = _EAGER if implementation == _EAGER else _SDPA
            config._attn_implementation = f"{_PREFIX}{own}"  # noqa: SLF001  # as above
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation  # noqa: SLF001  # as above
        for module in taps:
            del _attention_taps[module]


def _register_tapped(name: str) -> None:
    """Make a tapped attention known to transformers, with the masks of the one it taps."""
    from transformers.masking_utils import (  # noqa: PLC0415 -- takes seconds
        ALL_MASK_ATTENTION_FUNCTIONS,
    )
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: PLC0415 -- takes seconds

    ALL_ATTENTION_FUNCTIONS.register(f"{_PREFIX}{name}", partial(_tapped_attention, name))
    masks = ALL_MASK_ATTENTION_FUNCTIONS[name]
    ALL_MASK_ATTENTION_FUNCTIONS.register(f"{_PREFIX}{name}", masks)


def _tapped_attention(
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *arguments: Any,  # noqa: ANN401  # passed on as transformers gives them
    **options: Any,  # noqa: ANN401  # as above
) -> tuple[Tensor, Tensor | None]:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # noqa: PLC0415 -- takes seconds

    name, on_kv = _attention_taps.get(id(module), (None, None))
    if name is not None and on_kv is not None:
        replaced = on_kv(name, key, value)
        key, value = (key, value) if replaced is None else replaced
    run: Callable[..., tuple[Tensor, Tensor | None]]
    if implementation == _EAGER:  # each family's file has its own
        run = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    else:
        run = ALL_ATTENTION_FUNCTIONS[implementation]
    return run(module, query, key, value, *arguments, **options)
