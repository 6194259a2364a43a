"""Checkpoints whose layers have several schemes: what is declared, and what cannot be."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.artifacts import MIXED, Excluded, Inventory, QuantPlan
from harness.engines import Rules, read_declarations
from harness.errors import RecipeError
from harness.export.config import config_with_quantization, hf_quant_config
from harness.export.mixed import ignored_if_mixed, layer_schemes
from harness.formats import scheme_of
from harness.models import open_source, read_inventory
from harness.recipe import Request, load_recipe, plan
from tests.export.test_ignore import plan_of, split
from tests.published.cut import cut

PUBLISHED = Path(__file__).parent.parent / "published" / "configurations.jsonl"
RECIPE = "w4a16_nvfp4_fp8_attention"


@pytest.fixture(scope="module")
def canary() -> Inventory:
    return read_inventory(open_source("canary"))


def mixed(inventory: Inventory, **options: Any) -> QuantPlan:  # noqa: ANN401 - any option
    return plan(load_recipe(Request(model="canary", qformat=RECIPE, **options)), inventory)


def published(name: str) -> dict[str, Any]:
    rows = map(json.loads, PUBLISHED.read_text(encoding="utf-8").splitlines())
    return next(row for row in rows if row["name"] == name)


def declared(chosen: QuantPlan) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both declarations, cut as the published ones are: a layer of each kind, four experts."""
    config = open_source("canary").config
    small = cut(config_with_quantization(config, chosen), hf_quant_config(chosen))
    section, sidecar = small["config"]["quantization_config"], small["sidecar"]
    assert section.pop("producer") == sidecar.pop("producer")
    return section, sidecar


def test_the_published_declaration_is_reproduced_key_by_key(canary: Inventory) -> None:
    theirs = published("nvidia--Qwen3.6-35B-A3B-NVFP4")
    section, sidecar = declared(mixed(canary))
    del theirs["config"]["quantization_config"]["producer"], theirs["sidecar"]["producer"]
    assert section == theirs["config"]["quantization_config"]
    assert sidecar == theirs["sidecar"]
    layers = theirs["sidecar"]["quantization"]["quantized_layers"]
    assert list(sidecar["quantization"]["quantized_layers"]) == list(layers)


def test_a_typed_cache_format_is_declared_where_engines_read_it(canary: Inventory) -> None:
    section, sidecar = declared(mixed(canary, kv_cache="fp8"))
    later = published("nvidia--Qwen3.6-27B-NVFP4")["config"]["quantization_config"]
    assert section["kv_cache_scheme"] == later["kv_cache_scheme"]
    assert sidecar["quantization"]["kv_cache_quant_algo"] == "FP8"
    groups, theirs = section["config_groups"], later["config_groups"]
    for name in groups:
        del groups[name]["targets"], theirs[name]["targets"]
    assert groups == theirs


def test_an_engine_takes_each_layer_for_what_it_is(canary: Inventory) -> None:
    chosen = mixed(canary)
    found = read_declarations(config_with_quantization({}, chosen), hf_quant_config(chosen))[0]
    meant = {q.linear.name: scheme_of(q.weight_format, q.input_format) for q in chosen.quantized}
    asked = Rules(found).algorithms([*meant, *(e.module for e in chosen.excluded)])
    assert {name: algorithm for name, algorithm in asked.items() if algorithm} == meant


def of_two_schemes(chosen: set[tuple[int, str]], plain: Callable[[str], bool]) -> QuantPlan:
    """NVFP4 where groups are chosen, but for some that have no rounded inputs."""
    made = plan_of(*split(chosen))
    quantized = tuple(
        dataclasses.replace(one, input_format=None) if plain(one.linear.name) else one
        for one in made.quantized
    )
    return dataclasses.replace(made, scheme=MIXED, quantized=quantized)


GROUPS = {(0, "mlp.shared_expert.gate_up_proj"), (0, "self_attn.o_proj"), (1, "mlp.experts")}


def test_all_experts_of_a_layer_have_one_entry() -> None:
    made = of_two_schemes(GROUPS, lambda name: "experts" in name)
    assert layer_schemes(made) == {
        "model.layers.0.mlp.shared_expert.gate_proj": "NVFP4",
        "model.layers.0.mlp.shared_expert.up_proj": "NVFP4",
        "model.layers.0.self_attn.o_proj": "NVFP4",
        "model.layers.1.mlp.experts": "W4A16_NVFP4",
    }


def test_experts_that_an_engine_would_take_for_the_shared_expert_are_listed() -> None:
    made = of_two_schemes(GROUPS, lambda name: "experts" in name)
    assert ignored_if_mixed(made) == (
        "mtp*",
        "model.layers.0.mlp.experts",
        "model.layers.0.mlp.experts*",
    )


def test_draft_heads_that_are_layers_of_the_decoder_are_listed() -> None:
    made = of_two_schemes(GROUPS, lambda name: "experts" in name)
    more = [Excluded(module=f"model.layers.61.{part}", rule="*") for part in ("eh_proj", "q_proj")]
    made = dataclasses.replace(made, excluded=(*made.excluded, *more))
    assert "model.layers.61.*" in ignored_if_mixed(made)


def test_parts_of_a_fused_layer_in_two_schemes_are_refused() -> None:
    qkv = {(0, "self_attn.qkv_proj"), (0, "self_attn.o_proj")}
    made = of_two_schemes(qkv, lambda name: name.endswith(".q_proj"))
    with pytest.raises(RecipeError, match=r"engines would take 'model.layers.0.self_attn.q_proj'"):
        ignored_if_mixed(made)
