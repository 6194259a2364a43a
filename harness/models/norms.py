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
"""What two norms of a class may differ in: their plain attributes, and their width."""


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
    before = {kind: vars(kind).get("forward") for kind in known}
    try:
        for kind, formulas in known.items():
            kind.forward = _either(kind, formulas)
        yield
    finally:
        for kind, forward in before.items():
            if forward is None:  # it is another class's
                del kind.forward
            else:
                kind.forward = forward


def understood_norms(model: nn.Module) -> Mapping[type[Any], Mapping[Settings, Formula]]:
    """Return the formulas that are found, by class and by what norms of a class may differ in."""
    tried: set[tuple[type[Any], Settings]] = set()
    found: dict[type[Any], dict[Settings, Formula]] = defaultdict(dict)
    for module in model.modules():
        if not _may_be_a_norm(module):
            continue
        kind, settings = type(module), _settings(module)
        if (kind, settings) not in tried:
            tried.add((kind, settings))
            if (formula := _formula_of(module)) is not None:
                found[kind][settings] = formula
    return found


def _settings(norm: nn.Module) -> Settings:
    plain = (bool, int, float, str, type(None))
    known = {(name, one) for name, one in vars(norm).items() if isinstance(one, plain)}
    return frozenset({*known, ("width", norm.get_parameter("weight").shape)})


def _may_be_a_norm(module: nn.Module) -> bool:
    """Return whether a vector is all that it holds; torch's own have one pass already."""
    if type(module).__module__.startswith("torch.") or next(module.buffers(), None) is not None:
        return False
    return [(name, one.ndim) for name, one in module.named_parameters()] == [("weight", 1)]


def _formula_of(norm: nn.Module) -> Formula | None:
    """Try a norm on random rows, the first of which are so small that eps matters.

    They come as a matrix and with more dimensions: some norms are for one of the two alone.
    """
    with torch.device("cpu"):
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
            again = type(norm).forward(twin, *(one.reshape(4, 1, -1, width) for one in given))
        except Exception:  # noqa: BLE001, S112  # whatever else it may be, it is no such norm
            continue
        for formula, eps in _formulas(norm, gated=gate is not None):
            expected = formula.of(input_RW, weight_W, gate, eps)
            if _is(found, expected) and _is(again, expected.reshape(4, 1, -1, width)):
                return formula
    return None


def _formulas(norm: nn.Module, *, gated: bool) -> Iterator[tuple[Formula, float]]:
    for name, eps in vars(norm).items():
        if isinstance(eps, float) and 0 < eps < _LARGEST_EPS:
            for zero_centred, rounded in ((False, True), (False, False), (True, False)):
                yield Formula(name, zero_centred, rounded, gated), eps


def _is(found: object, expected: Tensor) -> bool:
    return isinstance(found, Tensor) and found.dtype == expected.dtype and found.equal(expected)


def _either(kind: type[Any], formulas: Mapping[Settings, Formula]) -> _Forward:
    """Return a norm's `forward` that computes what a kernel takes by that kernel."""
    theirs: _Forward = kind.forward

    def forward(self: Any, *given: Any, **options: Any) -> Any:  # noqa: ANN401  # as models have it
        is_plain = given and not options and all(isinstance(one, Tensor) for one in given)
        if not is_plain or type(self) is not kind or getattr(self, "weight", None) is None:
            return theirs(self, *given, **options)
        input, gate = (*given, None)[:2]  # noqa: A001  # torch's name for it
        formula = formulas.get(_settings(self))
        kernels = triton_module(_KERNELS, input.device)
        if formula is None or kernels is None or len(given) != 1 + formula.gated:
            return theirs(self, *given)
        if not _is_taken(input, self.weight, gate, kernels.MOST_FEATURES):
            return theirs(self, *given)
        output_RW: Tensor = kernels.normalize(
            input.reshape(-1, input.shape[-1]),
            self.weight,
            None if gate is None else gate.reshape(-1, input.shape[-1]),
            eps=getattr(self, formula.eps),
            zero_centred=formula.zero_centred,
            rounded=formula.rounded,
        )
        return output_RW.view(input.shape)

    return forward


def _is_taken(input: Tensor, weight: Tensor, gate: Tensor | None, most: int) -> bool:  # noqa: A002  # as above
    like = [weight] if gate is None else [weight, gate]
    return (
        input.dtype in _HALVES
        and all(one.dtype == input.dtype and one.device == input.device for one in like)
        and input.shape[-1] == weight.shape[0] <= most
        and (gate is None or gate.shape == input.shape)
        and input.numel() > 0
    )
