"""The ignore list: it names all that is unquantized and nothing that is quantized."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.artifacts import Excluded, Linear, PlannedLinear, QuantPlan, Slice
from harness.engines import MODELOPT, Declaration, Rules
from harness.errors import RecipeError
from harness.export.ignore import ignored_modules

GROUPS = {
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "linear_attn.in_proj_qkvz": ("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"),
    "linear_attn.in_proj_ba": ("linear_attn.in_proj_b", "linear_attn.in_proj_a"),
    "mlp.shared_expert.gate_up_proj": ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj"),
    "mlp.experts": tuple(
        f"mlp.experts.{e}.{p}_proj" for e in (0, 1, 10) for p in ("gate", "up", "down")
    ),
}
NEVER = ("mlp.gate", "mlp.shared_expert_gate", "linear_attn.conv1d")
OUTSIDE = ("lm_head", "model.embed_tokens", "model.visual.blocks.0.attn.qkv", "mtp.fc")
LAYERS = (0, 1, 10, 11)


def linear(name: str, group: str) -> PlannedLinear:
    where = Slice(tensor=f"{name}.weight")
    expert = ".mlp.experts." in name
    return PlannedLinear(
        linear=Linear(
            name=name,
            source=where,
            parameter=where,
            shape=(16, 16),
            weight_quantizer=f"{name}.weight_quantizer",
            input_quantizer=f"{name}.input_quantizer",
            group=group,
            experts=name.rpartition(".experts")[0] + ".experts" if expert else None,
            expert=0 if expert else None,
        ),
        weight_format="nvfp4",
        input_format="nvfp4",
        rule="*",
    )


def plan_of(quantized: dict[str, str], excluded: list[str]) -> QuantPlan:
    return QuantPlan(
        scheme="NVFP4",
        kv_cache="none",
        quantized=tuple(linear(name, group) for name, group in quantized.items()),
        excluded=tuple(Excluded(module=module, rule="no rule") for module in excluded),
        attentions=(),
        digest="",
    )


def split(chosen: set[tuple[int, str]]) -> tuple[dict[str, str], list[str]]:
    """Quantize the chosen groups of each layer; all else stays."""
    quantized: dict[str, str] = {}
    excluded = list(OUTSIDE)
    for layer in LAYERS:
        prefix = f"model.layers.{layer}"
        excluded += [f"{prefix}.{name}" for name in NEVER]
        for group, members in GROUPS.items():
            for member in members:
                if (layer, group) in chosen:
                    quantized[f"{prefix}.{member}"] = f"{prefix}.{group}"
                else:
                    excluded.append(f"{prefix}.{member}")
    return quantized, excluded


every_group = [(layer, group) for layer in LAYERS for group in GROUPS]


@settings(deadline=None, max_examples=100, derandomize=True)
@given(chosen=st.sets(st.sampled_from(every_group), min_size=1))
def test_every_excluded_module_is_named_and_no_quantized_one_is_hit(
    chosen: set[tuple[int, str]],
) -> None:
    quantized, excluded = split(chosen)
    entries = ignored_modules(plan_of(quantized, excluded))
    for name in excluded:
        assert any(fnmatchcase(name, entry) for entry in entries), name
    declared = Declaration(source="", layout=MODELOPT, algorithm="NVFP4", ignore=entries)
    taken = Rules(declared).algorithms([*quantized, *excluded])
    assert {name for name, algorithm in taken.items() if algorithm} == set(quantized)
    for name in quantized:
        assert not any(fnmatchcase(name, entry) for entry in entries)


def test_excluded_experts_are_one_module_and_not_thousands() -> None:
    quantized, excluded = split({(0, "self_attn.o_proj")})
    entries = ignored_modules(plan_of(quantized, excluded))
    assert "model.layers.1.mlp.experts" in entries
    assert "model.layers.1.mlp.experts*" in entries
    assert not [entry for entry in entries if ".experts.0" in entry]


def test_fused_spellings_stand_beside_their_excluded_members() -> None:
    quantized, excluded = split({(0, "mlp.experts")})
    entries = ignored_modules(plan_of(quantized, excluded))
    for fused in ("self_attn.qkv_proj", "linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"):
        assert f"model.layers.10.{fused}" in entries
    assert "model.layers.10.mlp.shared_expert.gate_up_proj" in entries


def test_a_wildcard_stands_for_a_top_level_part_without_anything_quantized() -> None:
    quantized, excluded = split({(0, "mlp.experts")})
    entries = ignored_modules(plan_of(quantized, excluded))
    wildcards = {entry for entry in entries if entry.endswith("*") and ".experts" not in entry}
    assert wildcards == {"model.visual*", "mtp*"}


def test_a_part_with_something_quantized_in_it_gets_no_wildcard() -> None:
    quantized, excluded = split({(0, "mlp.experts")})
    quantized["model.visual.merger.linear"] = "model.visual.merger.linear"
    entries = ignored_modules(plan_of(quantized, excluded))
    assert "model.visual*" not in entries
    assert "model.visual.blocks.0.attn.qkv" in entries


def test_an_exclusion_that_engines_take_for_a_part_of_a_quantized_name_is_refused() -> None:
    quantized = {
        f"model.layers.0.mlp.{p}_proj": "model.layers.0.mlp.gate_up_proj" for p in ("gate", "up")
    }
    with pytest.raises(RecipeError, match=r"'model\.layers\.0\.mlp\.gate' for a part of"):
        ignored_modules(plan_of(quantized, ["model.layers.0.mlp.gate"]))


def test_a_module_with_a_matrix_of_its_own_beside_quantized_layers_is_no_layer() -> None:
    quantized = {
        f"model.layers.0.mamba.{p}": f"model.layers.0.mamba.{p}" for p in ("in_proj", "x_proj")
    }
    entries = ignored_modules(plan_of(quantized, ["model.layers.0.mamba", "lm_head"]))
    assert entries == ("lm_head",)


def test_an_output_layer_that_is_the_embedding_is_named_though_no_file_has_it() -> None:
    quantized, excluded = split({(0, "self_attn.o_proj")})
    excluded.remove("lm_head")
    assert "lm_head" in ignored_modules(plan_of(quantized, excluded))
