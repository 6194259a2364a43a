"""All experts in two products give what they give one by one, rounded less often."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import Qwen3MoeConfig
from transformers.integrations.moe import grouped_mm_experts_forward
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from harness.models import experts as experts_file
from harness.models import experts_run, load_model, open_source, read_inventory, tap_linears
from harness.models.experts import run_grouped

ROUTED = ("qwen3_5_moe", "qwen3_moe", "mixtral")


def experts_of(folder: Path) -> tuple[nn.Module, Any]:
    """Return a tiny model in float64's place, float32, and its first layer's experts."""
    source = open_source(str(folder))
    model = load_model(source, read_inventory(source), device="cpu", dtype=torch.float32)
    return model, next(m for name, m in model.named_modules() if name.endswith("mlp.experts"))


def some_input(experts: Any, *, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401  # of any family
    """Return hidden states, for each token three different experts, and their weights."""
    seed = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(40, experts.down_proj.shape[1], generator=seed)
    experts_NK = torch.rand(40, experts.num_experts, generator=seed).topk(3).indices
    experts_NK[experts_NK == 1] = 0  # one expert gets nothing, and one token the same twice
    weights_NK = torch.rand(40, 3, generator=seed)
    return hidden_NH.to(dtype), experts_NK, weights_NK.to(dtype)


@pytest.mark.parametrize("family", ROUTED)
def test_the_sum_is_that_of_experts_one_by_one(tiny_models: dict[str, Path], family: str) -> None:
    model, experts = experts_of(tiny_models[family])
    given = some_input(experts, dtype=torch.float32)
    with torch.inference_mode(), experts_run(model, "eager"):
        one_by_one = experts(*given)
        assert_close(run_grouped(experts, *given), one_by_one)


@pytest.mark.parametrize("family", ROUTED)
def test_less_is_rounded_than_where_each_product_is_stored(
    tiny_models: dict[str, Path], family: str
) -> None:
    model, experts = experts_of(tiny_models[family])
    given = some_input(experts, dtype=torch.float32)
    with torch.inference_mode(), experts_run(model, "eager"):
        exact = experts(*given)
        experts.bfloat16()
        hidden_NH, experts_NK, weights_NK = given
        rounded = hidden_NH.bfloat16(), experts_NK, weights_NK.bfloat16()
        far = (experts(*rounded) - exact).abs().mean()
        assert (run_grouped(experts, *rounded) - exact).abs().mean() <= far


def test_experts_that_are_not_understood_run_as_transformers_has_it(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, experts = experts_of(tiny_models["qwen3_moe"])
    given = some_input(experts, dtype=torch.float32)
    with torch.inference_mode():
        mine = run_grouped(experts, *given)
        theirs = grouped_mm_experts_forward(experts, *given)
        monkeypatch.setattr(torch.nn.functional, "embedding_bag", None)
        monkeypatch.setattr(experts, "_is_expert_parallel", True)
        assert run_grouped(experts, *given).equal(theirs)
    assert_close(mine, theirs)


def test_more_experts_than_a_product_takes_run_one_by_one_and_are_seen(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experts_file, "_are_too_many", lambda *_: True)
    model, experts = experts_of(tiny_models["qwen3_moe"])
    given = some_input(experts, dtype=torch.float32)
    seen: set[int | None] = set()
    with torch.inference_mode(), experts_run(model, "grouped"):
        with tap_linears(model, lambda _, expert, __: seen.add(expert)):
            found = experts(*given)
        assert found.equal(type(experts).forward.__wrapped__(experts, *given))
    assert seen == set(given[1].reshape(-1).tolist())


NEEDS_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize(
    ("device", "num_experts", "num_products"),
    [
        ("cpu", 1030, 2),
        pytest.param("cuda", 1023, 2, marks=NEEDS_GPU),
        pytest.param("cuda", 1024, 0, marks=NEEDS_GPU),
    ],
)
def test_a_product_takes_1023_experts_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, num_experts: int, num_products: int
) -> None:
    config = Qwen3MoeConfig(hidden_size=64, moe_intermediate_size=32, num_experts=num_experts)
    made: Any = Qwen3MoeExperts
    experts = made(config).to(device, torch.bfloat16)
    for weight in experts.parameters():
        nn.init.normal_(weight, std=0.1)
    given = [one.to(device) for one in some_input(experts, dtype=torch.bfloat16)]
    products: list[Tensor] = []
    product = nn.functional.grouped_mm

    def counted(rows_SI: Tensor, weight_EIO: Tensor, *, offs: Tensor) -> Tensor:
        products.append(offs)
        return product(rows_SI, weight_EIO, offs=offs)

    monkeypatch.setattr(nn.functional, "grouped_mm", counted)
    with torch.inference_mode():
        found = run_grouped(experts, *given)
        assert_close(found, made.forward.__wrapped__(experts, *given), rtol=0.05, atol=0.02)
    assert len(products) == num_products
