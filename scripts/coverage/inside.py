"""See what reaches each expert of a running model, and round it as an engine would.

Shapes: S rows of all experts of a layer, E experts, N rows, I input features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.artifacts import QuantPlan
from harness.formats import get_format

OnRows = Callable[[str, Tensor, Tensor | None], Tensor]
"""Takes a parameter's name, its input rows and each row's expert; returns what is multiplied."""


class Planned(NamedTuple):
    """One parameter whose input is rounded."""

    quantizer: str
    num_experts: int
    """0 where it is one matrix."""


def planned_parameters(plan: QuantPlan) -> dict[str, Planned]:
    """Return the parameters of a plan by name."""
    found: dict[str, Planned] = {}
    for one in plan.quantized:
        name, expert = one.linear.parameter.tensor, one.linear.expert
        before = found[name].num_experts if name in found else 0
        most = before if expert is None else max(before, expert + 1)
        found[name] = Planned(one.linear.input_quantizer, most)
    return found


class _Tap(TorchFunctionMode):
    def __init__(self, names: Mapping[int, str], on_rows: OnRows) -> None:
        super().__init__()
        self._names, self._on_rows = names, on_rows

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        del types
        kwargs = kwargs or {}
        if func in {nn.functional.linear, torch._grouped_mm}:  # noqa: SLF001  # no public one
            name = self._names.get(args[1].data_ptr())
            if name is not None:
                args = (self._on_rows(name, args[0], _expert_of(args[0], kwargs)), *args[1:])
        return func(*args, **kwargs)


def _expert_of(rows: Tensor, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the expert of each row of a grouped product."""
    if (ends_E := kwargs.get("offs")) is None:
        return None
    places = torch.arange(len(rows), device=rows.device, dtype=ends_E.dtype)
    return torch.searchsorted(ends_E, places, right=True)


@contextmanager
def tapped(model: nn.Module, names: Sequence[str], on_rows: OnRows) -> Iterator[None]:
    """Let the inputs of some parameters pass through `on_rows`."""
    state = dict(model.named_parameters())
    with _Tap({state[name].data_ptr(): name for name in names}, on_rows):
        yield


class Evidence(NamedTuple):
    """What some text shows: rows and largest absolute inputs, of each expert where there are."""

    tokens: Mapping[str, Tensor]
    """[E], of parameters of experts alone."""
    amax: Mapping[str, Tensor]
    """[E] or [1]."""

    def __add__(self, other: object) -> "Evidence":
        assert isinstance(other, Evidence)  # noqa: S101  # of this script alone
        tokens = {name: value + other.tokens[name] for name, value in self.tokens.items()}
        amax = {name: torch.maximum(v, other.amax[name]) for name, v in self.amax.items()}
        return Evidence(tokens, amax)


class Seeing:
    """Gathers evidence."""

    def __init__(self, planned: Mapping[str, Planned], device: torch.device) -> None:
        self._tokens = {
            name: torch.zeros(one.num_experts, dtype=torch.long, device=device)
            for name, one in planned.items()
            if one.num_experts
        }
        self._amax = {
            name: torch.zeros(one.num_experts or 1, device=device) for name, one in planned.items()
        }

    def __call__(self, name: str, rows: Tensor, expert: Tensor | None) -> Tensor:
        """Take the rows as they are."""
        largest_S = rows.flatten(0, -2).abs().amax(-1).float()
        if expert is None:
            self._amax[name] = torch.maximum(self._amax[name], largest_S.amax())
        else:
            self._amax[name].scatter_reduce_(0, expert, largest_S, "amax")
            self._tokens[name].scatter_add_(0, expert, torch.ones_like(expert))
        return rows

    def evidence(self) -> Evidence:
        """Return what was seen."""
        return Evidence(self._tokens, self._amax)


class Rounding:
    """Rounds the inputs with scales of some evidence."""

    def __init__(self, form: str, evidence: Evidence, others: Evidence, *, each: bool) -> None:
        """Take a format, and what gives the scales of experts and of all other layers.

        With `each`, an expert has a scale of its own, else it shares its layer's; one that saw
        nothing takes its layer's then, as peers do.
        """
        device = next(iter(evidence.amax.values())).device
        self._format = get_format(form)
        self._largest: dict[str, Tensor] = {}
        for name, amax_E in evidence.amax.items():
            layer = amax_E.amax()
            own = torch.where(amax_E > 0, amax_E, layer)
            shared = layer if name in evidence.tokens else others.amax[name].amax()
            self._largest[name] = own if each and len(own) > 1 else shared.expand_as(own)
        self._unit = self._format.input_scale(1.0).item()
        self.rows = 0
        """Of experts."""
        self.beyond = torch.zeros((), dtype=torch.long, device=device)
        """Rows of experts that hold something larger than their range."""

    def __call__(self, name: str, rows: Tensor, expert: Tensor | None) -> Tensor:
        """Return the rounded rows."""
        largest_E = self._largest[name]
        if expert is None:
            return self._format.qdq_input(rows, input_scale=largest_E[0] * self._unit)
        largest_S1 = largest_E[expert][:, None]
        self.beyond += (rows.abs().amax(-1, keepdim=True) > largest_S1).sum()
        self.rows += len(rows)
        scale = largest_S1 * self._unit
        if self._format.block is not None:
            scale = scale[:, None]
        return self._format.qdq_input(rows, input_scale=scale)


@torch.no_grad()
def round_weights(model: nn.Module, names: Sequence[str], form: str) -> None:
    """Replace weights by what their codes stand for; each expert's matrix has its own scale."""
    state, chosen = dict(model.named_parameters()), get_format(form)
    for name in names:
        weight = state[name]
        weight_EOI = weight if weight.ndim == 3 else weight[None]  # noqa: PLR2004
        for matrix_OI in weight_EOI:
            tensors = chosen.quantize_weight(matrix_OI, amax=matrix_OI.abs().amax().item())
            matrix_OI.copy_(chosen.dequantize_weight(tensors, dtype=weight.dtype))
