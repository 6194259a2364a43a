import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness import shipped
from harness.artifacts import MIXED, Inventory, KvFormat, Recipe, Slice
from harness.errors import ModelError, RecipeError, UsageError
from harness.recipe import Request, load_recipe, plan, recipe_names

FORMATS = (
    *("fp8", "nvfp4", "nvfp4_experts_only", "nvfp4_mlp_only", "w4a16_nvfp4"),
    *("w4a16_nvfp4_experts_only", "w4a16_nvfp4_mlp_only", "fp8_block", "mxfp8", "mxfp4"),
    "fp8_layer_scales",
)


def recipe(qformat: str = "nvfp4", **options: Any) -> Recipe:  # noqa: ANN401 - any option
    return load_recipe(Request(model="canary", qformat=qformat, **options))


def names(inventory: Inventory, qformat: str) -> set[str]:
    return {q.linear.name for q in plan(recipe(qformat), inventory).quantized}


def test_experts_of_a_layer_share_a_scale_where_the_recipe_says_so(moe: Inventory) -> None:
    groups = {
        q.linear.group
        for q in plan(recipe("fp8_layer_scales"), moe).quantized
        if q.linear.is_routed and q.linear.name.startswith("model.layers.0.")
    }
    assert groups == {f"model.layers.0.mlp.experts.{n}" for n in ("gate_up_proj", "down_proj")}


def test_the_shipped_formats_are_those_of_the_contract() -> None:
    assert set(FORMATS) <= set(recipe_names())


@pytest.mark.parametrize("qformat", FORMATS)
def test_every_shipped_recipe_plans_a_mixture_of_experts(moe: Inventory, qformat: str) -> None:
    made = plan(recipe(qformat), moe)
    assert made.quantized
    excluded = {e.module for e in made.excluded}
    assert {
        "lm_head",
        "model.layers.0.mlp.gate",
        "model.layers.0.mlp.shared_expert_gate",
    } <= excluded
    assert not excluded & {q.linear.name for q in made.quantized}


def test_missing_evidence_is_inconclusive_unless_the_recipe_or_the_user_says_otherwise(
    tmp_path: Path,
) -> None:
    own = tmp_path / "own.yaml"
    shipped_text = (shipped.recipes() / "nvfp4.yaml").read_text(encoding="utf-8")
    own.write_text(f"{shipped_text}\nmissing_evidence: go\n", encoding="utf-8")
    assert recipe().missing_evidence == "inconclusive"
    assert recipe(missing_evidence="go").missing_evidence == "go"
    made = load_recipe(Request(model="canary", recipe=own))
    assert made.missing_evidence == "go"
    with pytest.raises(UsageError, match="unknown policy 'maybe'"):
        recipe(missing_evidence="maybe")


def test_experts_only_quantizes_routed_experts_and_nothing_else(moe: Inventory) -> None:
    assert names(moe, "nvfp4_experts_only") == {one.name for one in moe.linears if one.is_routed}


def test_mlp_only_adds_the_shared_expert(moe: Inventory) -> None:
    more = names(moe, "nvfp4_mlp_only") - names(moe, "nvfp4_experts_only")
    assert more == {f"model.layers.{n}.mlp.shared_expert.down_proj" for n in range(2)}


def test_schemes_follow_from_weights_and_inputs(moe: Inventory) -> None:
    schemes = {qformat: plan(recipe(qformat), moe).scheme for qformat in FORMATS}
    assert schemes["nvfp4"] == schemes["nvfp4_experts_only"] == "NVFP4"
    assert schemes["w4a16_nvfp4"] == "W4A16_NVFP4"
    assert schemes["fp8"] == "FP8"
    assert schemes["mxfp8"] == "MXFP8"


def test_experts_in_blocks_of_fp8_are_named_layer_by_layer(
    moe: Inventory, dense: Inventory
) -> None:
    assert plan(recipe("fp8_block"), moe).scheme == MIXED
    assert plan(recipe("fp8_block"), dense).scheme == "FP8_PB_WO"


def test_experts_that_no_engine_loads_are_refused(moe: Inventory, dense: Inventory) -> None:
    with pytest.raises(RecipeError, match="no engine loads routed experts as FP8_PER_CHANNEL"):
        plan(recipe("fp8_per_channel_per_token"), moe)
    assert plan(recipe("fp8_per_channel_per_token"), dense).scheme == "FP8_PER_CHANNEL_PER_TOKEN"


def test_layers_may_have_different_schemes(moe: Inventory, tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*weight_quantizer"')
    more = '  - {quantizer: "*experts*weight_quantizer", format: fp8}\n'
    more += '  - {quantizer: "*experts*input_quantizer", format: fp8}\n'
    file.write_text(file.read_text().replace("exclude:", f"{more}exclude:", 1))
    made = plan(load_recipe(Request(model="canary", recipe=file)), moe)
    assert made.scheme == MIXED
    assert {(q.linear.is_routed, q.weight_format, q.input_format) for q in made.quantized} == {
        (True, "fp8", "fp8"),
        (False, "nvfp4", None),
    }


def test_a_recipe_that_quantizes_nothing_is_refused(moe: Inventory, tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*weight_quantizer"')
    text = file.read_text().replace("format: nvfp4", "format: none")
    file.write_text(text)
    with pytest.raises(RecipeError, match="the recipe quantizes nothing"):
        plan(load_recipe(Request(model="canary", recipe=file)), moe)


def test_experts_that_stay_are_named_by_their_stack_too(moe: Inventory, tmp_path: Path) -> None:
    """Granite's files call it `input_linear`; engines and checks meet it by that name."""
    stack = "model.layers.0.block_sparse_moe.input_linear"
    stacked = tuple(
        dataclasses.replace(one, source=Slice(tensor=f"{stack}.weight", expert=one.expert))
        if one.is_routed
        else one
        for one in moe.linears
    )
    file = own_recipe(tmp_path, '"*self_attn*weight_quantizer"')
    inventory = dataclasses.replace(moe, linears=stacked)
    made = plan(load_recipe(Request(model="canary", recipe=file)), inventory)
    assert [one.module for one in made.excluded].count(stack) == 1


def test_half_of_a_fused_group_is_refused(moe: Inventory, tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*q_proj.weight_quantizer"')
    with pytest.raises(RecipeError, match=r"engines load 'model.layers.0.self_attn.qkv' as one"):
        plan(load_recipe(Request(model="canary", recipe=file)), moe)


def test_one_projection_of_the_experts_is_refused(moe: Inventory, tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*experts*down_proj*weight_quantizer"')
    with pytest.raises(RecipeError, match=r"engines load 'model.layers.0.mlp.experts' as one"):
        plan(load_recipe(Request(model="canary", recipe=file)), moe)


def test_a_width_that_is_no_multiple_of_the_block_is_refused(dense: Inventory) -> None:
    narrow = dataclasses.replace(dense.linears[0], shape=(32, 40))
    others = dense.linears[1:]
    with pytest.raises(ModelError, match=r"'model.layers.0.self_attn.q_proj' is 40 wide"):
        plan(recipe("nvfp4"), dataclasses.replace(dense, linears=(narrow, *others)))
    plan(recipe("fp8"), dataclasses.replace(dense, linears=(narrow, *others)))


def test_an_unknown_format_of_a_rule_is_refused(moe: Inventory, tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*weight_quantizer"', form="nvfp5")
    with pytest.raises(RecipeError, match=r"unknown format 'nvfp5'. Did you mean 'nvfp4'"):
        plan(load_recipe(Request(model="canary", recipe=file)), moe)


def test_an_unknown_qformat_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown format 'nvfp'. Did you mean 'nvfp4'"):
        recipe("nvfp")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nvfp4_gptq_awq", "nvfp4_awq_gptq"),
        ("w4a16_nvfp4_gptaq_local_hessian_awq", "w4a16_nvfp4_awq_local_hessian_gptaq"),
    ],
)
def test_algorithms_in_another_order_name_theirs(typed: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=rf"Did you mean '{meant}'\?"):
        recipe(typed)
    assert recipe(meant).algorithm.needs_inputs


@pytest.mark.parametrize("typed", ["nvfp4_mse_local_hessian", "nvfp5_gptq_awq"])
def test_algorithms_in_no_order_are_listed(typed: str) -> None:
    with pytest.raises(RecipeError, match=rf"unknown format '{typed}'. Formats that make nvfp4"):
        recipe(typed)


def test_an_unknown_key_in_a_recipe_is_refused(tmp_path: Path) -> None:
    file = own_recipe(tmp_path, '"*weight_quantizer"')
    file.write_text(file.read_text() + "colour: red\n")
    with pytest.raises(RecipeError, match=r"colour: there is no such key"):
        load_recipe(Request(model="canary", recipe=file))


def test_the_key_value_cache_format_overrides_the_recipes(moe: Inventory) -> None:
    assert plan(recipe(), moe).attentions == ()
    made = plan(recipe(kv_cache="fp8"), moe)
    assert made.kv_cache == KvFormat.FP8
    assert made.attentions == moe.attentions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_cache": "int8"}, "unknown KV cache format 'int8'"),
        ({"numerics": "exact"}, "unknown numerics 'exact'"),
        ({"calib_size": 0}, "--calib-size 0"),
        ({"calib_seq": 1}, "--calib-seq 1"),
        ({"experts": "batched"}, "--experts 'batched'"),
        ({"ranks": 2, "layerwise": False}, "--ranks 2: .* Type --layerwise"),
        ({"gpu_memory": "24"}, "--gpu-memory '24' is no size"),
        ({"host_memory": "0GiB"}, "--host-memory '0GiB' is no size"),
        ({"host_memory": "9GiB", "layerwise": False}, "--host-memory 9GiB: .* --whole"),
        ({"host_memory": "GiB"}, "is no size. Type a number and a unit, such as 24GiB"),
        ({"margin": 2.0}, "margin 2.0 is no fraction"),
    ],
)
def test_an_impossible_option_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        recipe(**options)


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("24GiB", 24 << 30), ("1.5 GiB", 3 << 29), ("500MB", 500_000_000), ("2tib", 2 << 40)],
)
def test_sizes_are_read_with_their_unit(text: str, num_bytes: int) -> None:
    memory = recipe(gpu_memory=text, host_memory=text).memory
    assert (memory.gpu_bytes, memory.host_bytes) == (num_bytes, num_bytes)


def test_experts_run_in_one_product_unless_asked_otherwise() -> None:
    assert recipe().calibration.experts == "grouped"
    assert recipe(experts="eager").calibration.experts == "eager"


def test_both_or_neither_of_qformat_and_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"either --qformat or --recipe"):
        load_recipe(Request(model="canary"))
    with pytest.raises(RecipeError, match=r"either --qformat or --recipe"):
        load_recipe(Request(model="canary", qformat="fp8", recipe=tmp_path))


def own_recipe(folder: Path, pattern: str, *, form: str = "nvfp4") -> Path:
    text = (shipped.recipes() / "w4a16_nvfp4.yaml").read_text()
    path = folder / "own.yaml"
    path.write_text(
        text.replace('"*weight_quantizer", format: nvfp4', f"{pattern}, format: {form}")
    )
    return path
