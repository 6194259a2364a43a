"""Seeing and replacing what flows through a model, and leaving it as it was."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.artifacts import Inventory
from harness.models import (
    decoder_layers,
    experts_run,
    load_model,
    open_source,
    read_inventory,
    tap_attention,
    tap_linears,
)

FAMILIES = ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"]
IDS = torch.randint(250, (4, 48), generator=torch.Generator().manual_seed(3))


def _load(folder: Path) -> tuple[PreTrainedModel, Inventory]:
    source = open_source(str(folder))
    inventory = read_inventory(source)
    return load_model(source, inventory, device="cpu", dtype=torch.float32), inventory


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_of_the_text_model_is_seen_by_name(
    tiny_models: dict[str, Path], family: str
) -> None:
    model, inventory = _load(tiny_models[family])
    seen: Counter[tuple[str, int | None]] = Counter()

    def see(name: str, expert: int | None, x: Tensor) -> None:
        seen[name, expert] += x.numel() // x.shape[-1]

    with torch.inference_mode(), experts_run(model, "eager"), tap_linears(model, see):
        model(input_ids=IDS)
    expected = {
        (linear.parameter.tensor, linear.expert)
        for linear in inventory.linears
        if "visual" not in linear.name
    }
    kept = {f"{name}.weight" for name in inventory.unquantizable}
    renamed = {(name.replace("block_sparse_moe", "mlp"), None) for name in kept}
    assert seen.keys() - renamed == expected
    routed = [count for (_, expert), count in seen.items() if expert is not None]
    num_projections = len({name for name, expert in seen if expert is not None})
    assert sum(routed) == num_projections * IDS.numel() * 2  # two experts a token


def test_without_eager_experts_none_is_seen(tiny_models: dict[str, Path]) -> None:
    model, _ = _load(tiny_models["qwen3_moe"])
    experts: list[int] = []
    with (
        torch.inference_mode(),
        tap_linears(model, lambda _, expert, __: experts.append(expert) if expert else None),
    ):
        model(input_ids=IDS)
    assert experts == []


def test_what_the_tap_returns_replaces_the_input(tiny_models: dict[str, Path]) -> None:
    model, _ = _load(tiny_models["qwen3"])
    head = model.get_parameter("lm_head.weight")

    def replace(name: str, expert: int | None, x: Tensor) -> Tensor | None:
        del expert
        return torch.ones_like(x) if name == "lm_head.weight" else None

    with torch.inference_mode(), tap_linears(model, replace):
        logits = model(input_ids=IDS).logits
    assert torch.allclose(logits, head.sum(dim=1).expand_as(logits), atol=1e-5)


def test_other_models_are_not_seen(tiny_models: dict[str, Path]) -> None:
    model, _ = _load(tiny_models["qwen3"])
    stranger = torch.nn.Linear(4, 4)
    seen: list[str] = []
    with torch.inference_mode(), tap_linears(model, lambda name, _, __: seen.append(name)):
        stranger(torch.ones(4))
        torch.nn.functional.linear(input=torch.ones(4), weight=torch.ones(4, 4))
    assert seen == []


def test_a_tied_weight_is_seen_as_the_output_layer(tiny_qwen3_tied: Path) -> None:
    model, _ = _load(tiny_qwen3_tied)
    seen: set[str] = set()
    with torch.inference_mode(), tap_linears(model, lambda name, _, __: seen.add(name)):
        model(input_ids=IDS)
    assert "lm_head.weight" in seen
    assert "model.embed_tokens.weight" not in seen


def _implementations(model: PreTrainedModel) -> list[str]:
    configs = [c for c in (vars(m).get("config") for m in model.modules()) if c is not None]
    return [config._experts_implementation for config in configs]  # noqa: SLF001  # no public one


def test_eager_experts_reach_nested_configurations_and_are_restored(
    tiny_models: dict[str, Path],
) -> None:
    model, _ = _load(tiny_models["qwen3_5_moe"])
    before = _implementations(model)
    assert "grouped_mm" in before
    with pytest.raises(KeyError), experts_run(model, "eager"):  # noqa: PT012  # the error is the exit
        assert set(_implementations(model)) == {"eager"}
        raise KeyError
    assert _implementations(model) == before


def test_configurations_that_contain_each_other_do_not_loop(
    tiny_models: dict[str, Path],
) -> None:
    model, _ = _load(tiny_models["qwen3_5_moe"])
    model.config.text_config.outer = model.config
    with experts_run(model, "eager"):
        assert set(_implementations(model)) == {"eager"}


@pytest.mark.parametrize("family", FAMILIES)
def test_decoder_layers_are_found(tiny_models: dict[str, Path], family: str) -> None:
    model, _ = _load(tiny_models[family])
    layers = decoder_layers(model)
    assert len(layers) == model.config.get_text_config().num_hidden_layers
    assert all("DecoderLayer" in type(layer).__name__ for layer in layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_shows_keys_as_they_are_cached(tiny_models: dict[str, Path], family: str) -> None:
    model, inventory = _load(tiny_models[family])
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def see(name: str, key: Tensor, value: Tensor) -> None:
        seen[name] = (key, value)

    with torch.inference_mode():
        plain = model(input_ids=IDS, use_cache=True)
        with tap_attention(model, see):
            tapped = model(input_ids=IDS)
    assert torch.equal(plain.logits, tapped.logits)
    assert list(seen) == [a.name for a in inventory.attentions]
    for name, (key, value) in seen.items():
        cached = plain.past_key_values.layers[int(name.split(".")[-2])]
        assert torch.equal(key, cached.keys)
        assert torch.equal(value, cached.values)


def test_keys_and_values_can_be_replaced_and_the_attention_is_restored(
    tiny_models: dict[str, Path],
) -> None:
    model, _ = _load(tiny_models["qwen3_5_moe"])

    def run_without_values_and_fail() -> None:
        with tap_attention(model, lambda _, k, v: (k, torch.zeros_like(v))):
            assert not torch.equal(model(input_ids=IDS).logits, plain)
            raise KeyError

    with torch.inference_mode():
        plain = model(input_ids=IDS).logits
        with pytest.raises(KeyError):
            run_without_values_and_fail()
        assert torch.equal(model(input_ids=IDS).logits, plain)


def test_two_models_can_be_tapped_at_once(tiny_models: dict[str, Path]) -> None:
    one, _ = _load(tiny_models["qwen3"])
    two, _ = _load(tiny_models["mixtral"])
    seen: Counter[str] = Counter()

    def count(which: str) -> None:
        seen[which] += 1

    with (
        torch.inference_mode(),
        tap_attention(one, lambda *_: count("one")),
        tap_attention(two, lambda *_: count("two")),
    ):
        one(input_ids=IDS)
        two(input_ids=IDS)
        two(input_ids=IDS)
    assert seen == {"one": 2, "two": 4}
