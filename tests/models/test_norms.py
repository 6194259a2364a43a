"""Norms whose formula is found by trying them run by a kernel; others run as they are."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.models import fused_norms, load_model, norms, open_source, read_inventory
from harness.models.norms import Formula, understood_norms

FORMULAS = {
    "qwen3_5_moe": {
        "Qwen3_5MoeRMSNorm": Formula("eps", zero_centred=True, rounded=False, gated=False),
        "Qwen3_5MoeRMSNormGated": Formula(
            "variance_epsilon", zero_centred=False, rounded=True, gated=True
        ),
    },
    "mixtral": {
        "MixtralRMSNorm": Formula("variance_epsilon", zero_centred=False, rounded=True, gated=False)
    },
}


def running_model(folder: Path) -> Any:  # noqa: ANN401  # of any family
    source = open_source(str(folder))
    return load_model(source, read_inventory(source), device="cpu", dtype=torch.bfloat16)


class Root(nn.Module):
    """A norm like those of models' files, but for what `after` does."""

    def __init__(self, after: Callable[[Tensor], Tensor] | None = None, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(24, dtype=torch.bfloat16))
        self.eps, self.after = eps, after
        self.is_bounded = False

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        out = (wide * self.weight.float()).to(x.dtype)
        out = out.clamp(-1, 1) if self.is_bounded else out
        return out if self.after is None else self.after(out)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Stand in for the kernel: its signature, and the formula's arithmetic."""
    seen: list[dict[str, object]] = []

    def normalize(
        input_RW: Tensor,
        weight_W: Tensor,
        gate_RW: Tensor | None,
        **settings: Any,  # noqa: ANN401  # the kernel's
    ) -> Tensor:
        seen.append(settings)
        eps = settings.pop("eps")
        gated = gate_RW is not None
        return Formula("", **settings, gated=gated).of(input_RW, weight_W, gate_RW, eps)

    module = SimpleNamespace(normalize=normalize, MOST_FEATURES=64)
    monkeypatch.setattr(norms, "triton_module", lambda *_: module)
    return seen


@pytest.mark.parametrize("family", FORMULAS)
def test_the_formulas_of_families_are_found(tiny_models: dict[str, Path], family: str) -> None:
    found = understood_norms(running_model(tiny_models[family]))
    formulas = {kind.__name__: set(by.values()) for kind, by in found.items()}
    assert formulas == {name: {formula} for name, formula in FORMULAS[family].items()}


@pytest.mark.parametrize(
    "after", [torch.neg, lambda x: x * 1.01, lambda x: x.float(), lambda x: (x,)]
)
def test_a_norm_that_gives_something_else_is_not_understood(
    after: Callable[[Tensor], Tensor],
) -> None:
    assert list(understood_norms(nn.Sequential(Root()))) == [Root]
    assert not understood_norms(nn.Sequential(Root(after)))


def test_norms_of_a_class_are_told_apart_by_their_settings(kernel: list[dict[str, object]]) -> None:
    plain, bounded = Root(), Root()
    bounded.is_bounded = True
    both = nn.Sequential(plain, Root(eps=1e-5), bounded)
    assert len(understood_norms(both)[Root]) == 2
    x = torch.linspace(-3, 3, 48).reshape(2, 24).bfloat16()
    with torch.inference_mode(), fused_norms(both):
        assert float(bounded(x).max()) <= 1
        assert not kernel
        assert float(plain(x).max()) > 1
    assert len(kernel) == 1


class Centred(Root):
    """A class that changes what its base computes, in a step of it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(-1, keepdim=True))


class Grouped(Root):
    """Normalizes each half of a row that is wider than a group."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=torch.bfloat16))
        self.group_size = 24

    def forward(self, x: Tensor) -> Tensor:
        groups = x.float().reshape(*x.shape[:-1], -1, self.group_size)
        groups = groups * torch.rsqrt(groups.pow(2).mean(-1, keepdim=True) + self.eps)
        return (groups.reshape(x.shape) * self.weight.float()).to(x.dtype)


@pytest.mark.parametrize(
    ("norms_", "width"), [([Root(), Centred()], 24), ([Grouped(24), Grouped(48)], 48)]
)
def test_what_is_known_of_one_norm_is_not_said_of_another(
    kernel: list[dict[str, object]], norms_: list[nn.Module], width: int
) -> None:
    last = norms_[-1]
    x = (torch.linspace(1, 5, 4 * width).reshape(4, width) ** 2).bfloat16()
    with torch.inference_mode():
        expected = last(x)
        with fused_norms(nn.Sequential(*norms_)):
            assert last(x).equal(expected)
            assert not kernel
            norms_[0](x[:, :24])
    assert len(kernel) == 1


def test_a_norm_may_be_called_by_keyword_and_inherit_what_it_does(
    kernel: list[dict[str, object]],
) -> None:
    class Heir(Root):
        """Its `forward` is its base's."""

    x = torch.ones(2, 24).bfloat16()
    with torch.inference_mode(), fused_norms(nn.Sequential(Heir())):
        assert Heir()(x=x).shape == (2, 24)
        assert not kernel
        assert Heir()(x).shape == (2, 24)
    assert len(kernel) == 1
    assert "forward" not in vars(Heir)


def test_a_norm_of_matrices_alone_is_not_understood() -> None:
    assert not understood_norms(nn.Sequential(Root(after=lambda x: x.reshape(-1, x.shape[-1]))))


def test_torch_s_own_norms_and_what_holds_more_than_a_weight_are_left_alone() -> None:
    more = Root()
    more.bias = nn.Parameter(torch.zeros(24))
    assert not understood_norms(nn.Sequential(nn.RMSNorm(24), nn.LayerNorm(24, bias=False), more))


@pytest.mark.parametrize("family", FORMULAS)
def test_a_model_runs_all_its_norms_by_the_kernel(
    tiny_models: dict[str, Path], kernel: list[dict[str, object]], family: str
) -> None:
    model = running_model(tiny_models[family])
    kinds = understood_norms(model)
    num_norms = sum(type(module) in kinds for module in model.modules())
    ids_BT = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = model(input_ids=ids_BT).logits
        assert not kernel
        with fused_norms(model):
            found = model(input_ids=ids_BT).logits
        assert len(kernel) == num_norms
        assert found.equal(expected)
        assert model(input_ids=ids_BT).logits.equal(expected)
    assert len(kernel) == num_norms


def test_what_the_kernel_does_not_take_runs_as_before(kernel: list[dict[str, object]]) -> None:
    norm, wide = Root(), Root()
    wide.weight = nn.Parameter(torch.ones(65, dtype=torch.bfloat16))
    without = Root()
    seed = torch.Generator().manual_seed(0)
    x = torch.randn(3, 24, generator=seed).bfloat16()
    with torch.inference_mode(), fused_norms(nn.Sequential(norm, without)):
        assert norm(x.float()).dtype == torch.float32
        assert wide(torch.ones(2, 65, dtype=torch.bfloat16)).shape == (2, 65)
        assert norm(x[:0]).shape == (0, 24)
        del without.weight
        with pytest.raises(AttributeError, match="weight"):  # as without a kernel
            without(x)
    assert not kernel
    with torch.inference_mode(), fused_norms(nn.Sequential(norm)):
        assert norm(x.reshape(1, 3, 24)).shape == (1, 3, 24)
    assert len(kernel) == 1


def test_on_a_cpu_nothing_changes(tiny_models: dict[str, Path]) -> None:
    model = running_model(tiny_models["qwen3_5_moe"])
    ids_BT = torch.arange(12).reshape(2, 6)
    with torch.inference_mode():
        expected = model(input_ids=ids_BT).logits
        with fused_norms(model):
            assert model(input_ids=ids_BT).logits.equal(expected)
