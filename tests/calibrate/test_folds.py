"""Which factors can be folded away: found and proven by running a layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from harness.calibrate.folds import Fold, Foldable, Part, find_folds, fold_in
from harness.models import ResidentLayer

WIDTH, INNER = 32, 48


class Norm(nn.Module):
    """Divides by the root of the mean square, and multiplies with `shift` + w."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.weight, self.shift = nn.Parameter(torch.rand(WIDTH) + 0.5), shift

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = x * x.square().mean(-1, keepdim=True).rsqrt()
        scaled: Tensor = normed * (self.shift + self.weight)
        return scaled


class Layer(nn.Module):
    """A residual around a norm and a gated block."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.norm = Norm(1.0 if options.get("one_plus") else 0.0)
        self.gate = nn.Linear(WIDTH, INNER, bias=False)
        self.up = nn.Linear(WIDTH, INNER, bias=bool(options.get("bias")))
        self.down = nn.Linear(INNER, WIDTH, bias=False)
        self.spare = nn.Linear(WIDTH, INNER, bias=False)
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        up = self.up(normed)
        if self.options.get("bounded"):
            up = up.clamp(-4, 4)
        inner = nn.functional.silu(self.gate(normed)) * up
        if not self.options.get("rarely"):
            inner = inner + 0 * self.spare(normed)
        residual = normed if self.options.get("behind_norm") else x
        output: Tensor = residual + self.down(inner)
        return output


def foldable(module: nn.Module, **without: str) -> Foldable:
    matrices = {name: Part(name) for name, p in module.named_parameters() if p.ndim > 1}
    vectors = [Part(name) for name, p in module.named_parameters() if p.ndim == 1]
    readers = {name: one for name, one in matrices.items() if name not in without.values()}
    givers = [*vectors, *matrices.values()]
    return Foldable(ResidentLayer(0, module, "layer"), givers, readers, frozenset(matrices))


def found(module: nn.Module, **without: str) -> set[str]:
    torch.manual_seed(0)
    x = torch.randn(4, 16, WIDTH)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with torch.no_grad():
        folds = find_folds(foldable(module, **without), lambda: module(x))
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    return {fold.giver.name for fold in folds}


NORM, UP = "norm.weight", "up.weight"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {NORM, UP}),
        ({"one_plus": True}, {UP}),
        ({"behind_norm": True}, {UP}),
        ({"bounded": True}, {NORM}),
        ({"bias": True}, {NORM}),
        ({"rarely": True}, set()),  # who reads is known only when all were seen
    ],
)
def test_what_changes_no_bit_is_found(options: dict[str, bool], expected: set[str]) -> None:
    torch.manual_seed(0)
    assert found(Layer(**options)) == expected


@pytest.mark.parametrize(("unreadable", "left"), [("gate.weight", {UP}), ("down.weight", {NORM})])
def test_a_reader_that_cannot_follow_forbids_it(unreadable: str, left: set[str]) -> None:
    torch.manual_seed(0)
    assert found(Layer(), without=unreadable) == left


def test_readers_are_those_of_the_norm_alone() -> None:
    torch.manual_seed(0)
    layer, x = Layer(), torch.randn(2, 8, WIDTH)
    with torch.no_grad():
        folds = find_folds(foldable(layer), lambda: layer(x))
    readers = {fold.giver.name: {part.name for part in fold.readers} for fold in folds}
    assert readers == {
        NORM: {"gate.weight", "up.weight", "spare.weight"},
        UP: {"down.weight"},
    }


def changed_by(fold: Callable[[Layer], tuple[Fold, Tensor]]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    layer, x = Layer().bfloat16(), torch.randn(2, 8, WIDTH).bfloat16()
    with torch.no_grad():
        before = layer(x)
        fold_in(foldable(layer), *fold(layer))
        return before, layer(x)


def test_in_bfloat16_too_a_fold_changes_no_bit() -> None:
    readers = tuple(Part(f"{name}.weight") for name in ("gate", "up", "spare"))
    exponent = torch.arange(WIDTH) % 17 - 8
    before, after = changed_by(lambda _: (Fold(Part(NORM), readers), exponent))
    assert torch.equal(before, after)


class Latent(nn.Module):
    """Experts make features that one matrix, or fewer experts, read."""

    def __init__(self, num_readers: int | None) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, INNER, WIDTH) / 8)
        shape = (WIDTH, INNER) if num_readers is None else (num_readers, WIDTH, INNER)
        self.down = nn.Parameter(torch.randn(shape) / 8)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.einsum("btj,eij->beti", x, self.up).sum(1)
        down = self.down if self.down.ndim == 2 else self.down.sum(0)
        return nn.functional.linear(inner, down)


@pytest.mark.parametrize("num_readers", [None, 3])
def test_what_other_experts_read_is_left_alone(
    num_readers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, x = Latent(num_readers), torch.randn(2, 8, WIDTH)
    layer = foldable(module)
    monkeypatch.setattr("harness.calibrate.folds._readers", lambda *_: {"down"})
    with torch.no_grad():
        folds = find_folds(layer._replace(givers=[Part("up")]), lambda: module(x))
    assert not folds
