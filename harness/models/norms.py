"""Run a model's RMS norms in one pass on a GPU.

As models' own files have it, a norm passes over its input some ten times, half of them in float32:
on an H200 that was a fifth of a decoder layer's time. What a norm computes is found by trying it:
on random rows of a CPU it must give, bit for bit, what one of a few formulas gives. Of a norm that
gives something else nothing is known, and it runs as it is.

Shapes: R rows, W features.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.kernels import triton_module

_KERNELS = "harness.models.norms_triton"
_ROWS = 16
_LARGEST_EPS = 1e-2
_HALVES = (torch.bfloat16, torch.float16)
_Forward = Callable[..., Any]
Settings = frozenset[tuple[str, object]]
"""What two norms of a class may differ in: their plain attributes."""


class Formula(NamedTuple):
    """What a norm does to the rows that it divides by their root mean square."""

    eps: str
    """The attribute with what is added to the mean of the squares."""
    zero_centred: bool
    """The weight counts from 1."""
    rounded: bool
    """Rows have their own type again before they are multiplied with the weight."""
    gated: bool
    """A second input's SiLU is multiplied with them, in float32."""

    def of(self, input_RW: Tensor, weight_W: Tensor, gate_RW: Tensor | None, eps: float) -> Tensor:
        """Compute it as models' files do."""
        wide_RW = input_RW.float()
        wide_RW = wide_RW * torch.rsqrt(wide_RW.pow(2).mean(-1, keepdim=True) + eps)
        if self.rounded:
            wide_RW = weight_W * wide_RW.to(input_RW.dtype)
        else:
            wide_RW = wide_RW * (weight_W.float() + 1 if self.zero_centred else weight_W.float())
        if gate_RW is not None:
            wide_RW = wide_RW * nn.functional.silu(gate_RW.float())
        return wide_RW.to(input_RW.dtype)


@contextmanager
def fused_norms(model: nn.Module) -> Iterator[None]:
    """Run the norms of a model that are understood in one pass each, where a GPU has them."""
    known = understood_norms(model)
    before: Mapping[type, _Forward] = {kind: kind.forward for kind in known}
    try:
        for kind, formulas in known.items():
            kind.forward = _either(formulas, before[kind])
        yield
    finally:
        for kind, forward in before.items():
            kind.forward = forward


def understood_norms(model: nn.Module) -> Mapping[type[Any], Mapping[Settings, Formula]]:
    """Return the formulas that are found, by class and by what norms of a class may differ in."""
    tried: set[tuple[type[Any], Settings]] = set()
    found: dict[type[Any], dict[Settings, Formula]] = defaultdict(dict)
    for module in model.modules():
        kind = type(module), _settings(module)
        if kind in tried or not _may_be_a_norm(module):
            continue
        tried.add(kind)
        if (formula := _formula_of(module)) is not None:
            found[kind[0]][kind[1]] = formula
    return found


def _settings(module: nn.Module) -> Settings:
    plain = (bool, int, float, str, type(None))
    return frozenset((name, one) for name, one in vars(module).items() if isinstance(one, plain))


def _may_be_a_norm(module: nn.Module) -> bool:
    """Return whether a vector is all that it holds; torch's own have one pass already."""
    if type(module).__module__.startswith("torch.") or next(module.buffers(), None) is not None:
        return False
    return [(name, one.ndim) for name, one in module.named_parameters()] == [("weight", 1)]


def _formula_of(norm: nn.Module) -> Formula | None:
    """Try a norm on random rows, the first of which are so small that eps matters."""
    seed = torch.Generator().manual_seed(0)
    width = norm.get_parameter("weight").shape[0]
    sizes_R1 = torch.logspace(-4, 2, _ROWS).unsqueeze(1)
    input_RW = (torch.randn(_ROWS, width, generator=seed) * sizes_R1).bfloat16()
    weight_W = torch.randn(width, generator=seed).bfloat16()
    gate_RW = torch.randn(_ROWS, width, generator=seed).bfloat16()
    twin = copy.copy(norm)
    vars(twin)["_parameters"] = {"weight": nn.Parameter(weight_W, requires_grad=False)}
    for gate in (None, gate_RW):
        given = [input_RW] if gate is None else [input_RW, gate]
        try:
            found = type(norm).forward(twin, *given)
        except Exception:  # noqa: BLE001, S112  # whatever else it may be, it is no such norm
            continue
        for formula, eps in _formulas(norm, gated=gate is not None):
            if _is(found, formula.of(input_RW, weight_W, gate, eps)):
                return formula
    return None


def _formulas(norm: nn.Module, *, gated: bool) -> Iterator[tuple[Formula, float]]:
    for name, eps in vars(norm).items():
        if isinstance(eps, float) and 0 < eps < _LARGEST_EPS:
            for zero_centred, rounded in ((False, True), (False, False), (True, False)):
                yield Formula(name, zero_centred, rounded, gated), eps


def _is(found: object, expected: Tensor) -> bool:
    return isinstance(found, Tensor) and found.dtype == expected.dtype and found.equal(expected)


def _either(formulas: Mapping[Settings, Formula], theirs: _Forward) -> _Forward:
    """Return a norm's `forward` that computes what a kernel takes by that kernel."""

    def forward(self: Any, input: Tensor, *others: Any, **options: Any) -> Any:  # noqa: A002, ANN401  # as models have it
        formula = formulas.get(_settings(self))
        kernels = triton_module(_KERNELS, input.device)
        weight_W = getattr(self, "weight", None)  # of which some go without
        if formula is None or kernels is None or options or len(others) != formula.gated:
            return theirs(self, input, *others, **options)
        gate = others[0] if others else None
        if not _is_taken(input, weight_W, gate, kernels.MOST_FEATURES):
            return theirs(self, input, *others)
        output_RW: Tensor = kernels.normalize(
            input.reshape(-1, input.shape[-1]),
            weight_W,
            None if gate is None else gate.reshape(-1, input.shape[-1]),
            eps=getattr(self, formula.eps),
            zero_centred=formula.zero_centred,
            rounded=formula.rounded,
        )
        return output_RW.view(input.shape)

    return forward


def _is_taken(input: Tensor, weight: Tensor | None, gate: Tensor | None, most: int) -> bool:  # noqa: A002  # as above
    if weight is None:
        return False
    like = [weight] if gate is None else [weight, gate]
    return (
        input.dtype in _HALVES
        and all(one.dtype == input.dtype and one.device == input.device for one in like)
        and input.shape[-1] == weight.shape[0] <= most
        and (gate is None or gate.shape == input.shape)
        and input.numel() > 0
    )
