"""Inventories written down by hand: what a model consists of, without a model."""

import pytest

from harness.artifacts import Attention, Inventory, Linear, Slice

EXPERTS = "model.layers.{}.mlp.experts"


def linear(name: str, *, group: str | None = None, width: int = 64) -> Linear:
    return Linear(
        name=name,
        source=Slice(tensor=f"{name}.weight"),
        parameter=Slice(tensor=f"{name}.weight"),
        shape=(32, width),
        weight_quantizer=f"{name}.weight_quantizer",
        input_quantizer=f"{name}.input_quantizer",
        group=group or name,
        experts=None,
        expert=None,
    )


def routed(layer: int, expert: int, projection: str) -> Linear:
    experts = EXPERTS.format(layer)
    fused = "down_proj" if projection == "down_proj" else "gate_up_proj"
    name = f"{experts}.{expert}.{projection}"
    return Linear(
        name=name,
        source=Slice(tensor=f"{name}.weight"),
        parameter=Slice(tensor=f"{experts}.{fused}", expert=expert),
        shape=(32, 64),
        weight_quantizer=f"{experts}.{fused}_weight_quantizers.{expert}",
        input_quantizer=f"{experts}.{fused}_input_quantizer",
        group=f"{experts}.{expert}.{fused}",
        experts=experts,
        expert=expert,
    )


def inventory(linears: list[Linear]) -> Inventory:
    return Inventory(
        model_type="test_moe",
        linears=tuple(linears),
        others={},
        pieces=(),
        attentions=(Attention(name="model.layers.0.self_attn"),),
        unquantizable={"model.layers.0.mlp.gate": "router"},
        tensors={},
        digest="0" * 64,
    )


def attention_of(layer: int) -> list[Linear]:
    attention = f"model.layers.{layer}.self_attn"
    qkv = [linear(f"{attention}.{p}_proj", group=f"{attention}.qkv") for p in "qkv"]
    return [*qkv, linear(f"{attention}.o_proj")]


@pytest.fixture
def moe() -> Inventory:
    projections = ("gate_proj", "up_proj", "down_proj")
    linears = [
        one
        for layer in range(2)
        for one in (
            *attention_of(layer),
            *(routed(layer, e, p) for e in range(4) for p in projections),
            linear(f"model.layers.{layer}.mlp.shared_expert.down_proj"),
            linear(f"model.layers.{layer}.mlp.shared_expert_gate"),
        )
    ]
    return inventory([*linears, linear("lm_head")])


@pytest.fixture
def dense() -> Inventory:
    return inventory([*attention_of(0), linear("model.layers.0.mlp.down_proj"), linear("lm_head")])
