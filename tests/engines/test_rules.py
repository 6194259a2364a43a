"""The engine's rules, by example; test_same_as_vllm.py asks vLLM's own code the same."""

import pytest

from harness.artifacts import EngineSpec
from harness.engines import (
    MIXED,
    MODELOPT,
    NATIVE_FP8,
    USUAL,
    Asked,
    Declaration,
    EngineFamily,
    EngineLayer,
    Rules,
    engine_layers,
    engine_of,
    find_engine,
    known_engines,
)
from harness.engines.algorithms import COMPRESSED as IN_GROUPS
from harness.engines.compressed import Group
from harness.engines.declaration import LayerDeclared
from harness.engines.layers import Mapper

ENGINE = find_engine("vllm==0.32.0")
MODEL = {"architectures": ["Qwen3_5MoeForConditionalGeneration"]}
FAMILY = ENGINE.family_of(MODEL) or USUAL
IN_FILES = "model.language_model.layers.0"
MODULES = (
    "lm_head",
    "model.visual.blocks.0.attn.qkv",
    *(f"{IN_FILES}.self_attn.{p}_proj" for p in "qkvo"),
    *(f"{IN_FILES}.linear_attn.in_proj_{p}" for p in "ab"),
    *(f"{IN_FILES}.mlp.experts.{n}.{p}_proj" for n in (0, 1) for p in ("gate", "up", "down")),
)
LAYERS = {layer.name: layer for layer in engine_layers(MODULES, FAMILY)}
IN_ENGINE = "language_model.model.layers.0"
QKV, BA = f"{IN_ENGINE}.self_attn.qkv_proj", f"{IN_ENGINE}.linear_attn.in_proj_ba"
VISION, EXPERTS = "visual.blocks.0.attn.qkv", f"{IN_ENGINE}.mlp.experts"
YES, NO = Asked("NVFP4"), Asked(None)
SPLIT = Asked("NVFP4", is_split=True)

LISTS: tuple[tuple[list[str], str, Asked], ...] = (
    ([], QKV, YES),
    (["lm_head"], "language_model.lm_head", NO),
    (["model.visual*"], VISION, NO),
    (["model.visual"], VISION, YES),
    (["*visual*"], VISION, NO),
    ([f"{IN_FILES}.self_attn.q_proj"], QKV, SPLIT),
    ([f"{IN_FILES}.self_attn.{p}_proj" for p in "qkv"], QKV, NO),
    ([f"{IN_FILES}.self_attn.qkv_proj"], QKV, NO),
    ([f"{IN_FILES}.self_attn*"], QKV, NO),
    ([f"{IN_FILES}.linear_attn.in_proj_{p}" for p in "ab"], BA, NO),
    (["*in_proj_a*", "*in_proj_b*"], BA, YES),
    (["*.linear_attn.in_proj_ba"], BA, NO),
    ([f"{IN_FILES}.mlp.experts*"], EXPERTS, NO),
    ([f"{IN_FILES}.mlp.experts.0.up_proj"], EXPERTS, NO),
    (["model.language_model*"], QKV, NO),
    (["model.language_model.*"], QKV, NO),
)


def test_layers_have_the_engines_names() -> None:
    assert set(LAYERS) == {
        "language_model.lm_head",
        VISION,
        QKV,
        f"{IN_ENGINE}.self_attn.o_proj",
        BA,
        EXPERTS,
    }
    assert LAYERS[QKV].members == tuple(f"{IN_FILES}.self_attn.{p}_proj" for p in "qkv")
    assert LAYERS[EXPERTS].is_routed
    assert len(LAYERS[EXPERTS].members) == 6


@pytest.mark.parametrize(("ignore", "layer", "expected"), LISTS)
def test_modelopts_list_is_read_as_the_engine_reads_it(
    ignore: list[str], layer: str, expected: Asked
) -> None:
    declared = Declaration(source="", layout=MODELOPT, algorithm="NVFP4", ignore=tuple(ignore))
    assert ENGINE.rules(declared, MODEL).ask(LAYERS[layer]) == expected


GROUPS = (Group(name="g", targets=("Linear",), algorithm="NVFP4", format="x"),)


def compressed(ignore: list[str], groups: tuple[Group, ...] = GROUPS) -> Declaration:
    return Declaration(
        source="",
        layout="compressed-tensors",
        algorithm="NVFP4",
        groups=groups,
        ignore=tuple(ignore),
    )


COMPRESSED: tuple[tuple[list[str], str, Asked], ...] = (
    ([], QKV, YES),
    ([], "language_model.lm_head", NO),
    (["model.visual.blocks.0.attn.qkv"], VISION, NO),
    (["re:.*visual.*"], VISION, NO),
    (["re:model[.]visual.*"], VISION, YES),
    ([f"{IN_FILES}.self_attn.q_proj"], QKV, SPLIT),
    (["re:.*self_attn.*"], QKV, NO),
    (["re:.*in_proj_a$", "re:.*in_proj_b$"], BA, NO),
    (["re:.*experts.*"], EXPERTS, NO),
    (["re:.*experts.0.up_proj"], EXPERTS, SPLIT),
)


@pytest.mark.parametrize(("ignore", "layer", "expected"), COMPRESSED)
def test_the_list_of_compressed_tensors_is_read_as_the_engine_reads_it(
    ignore: list[str], layer: str, expected: Asked
) -> None:
    assert ENGINE.rules(compressed(ignore), MODEL).ask(LAYERS[layer]) == expected


def test_an_expression_for_the_whole_counts_from_version_to_version() -> None:
    """0.25.0 asks about the parts of a fused layer alone, later versions about the whole first."""
    layer = EngineLayer(QKV, LAYERS[QKV].members)
    declared = compressed(["re:.*qkv_proj"])
    asked = {v: find_engine(v).rules(declared, MODEL).ask(layer) for v in known_engines()}
    assert asked == {"vllm==0.25.0": YES, "vllm==0.32.0": NO, "vllm==0.33.0": NO}


def test_a_group_that_names_parts_comes_before_one_of_a_class_from_version_to_version() -> None:
    names = tuple(f"{IN_FILES}.self_attn.{p}_proj" for p in "qkv")
    groups = (
        Group(name="most", targets=("Linear",), algorithm="NVFP4", format="x"),
        Group(name="some", targets=names, algorithm="FP8", format="x"),
    )
    declared = compressed([], groups)
    asked = {v: find_engine(v).rules(declared, MODEL).ask(LAYERS[QKV]) for v in known_engines()}
    assert [one.algorithm for one in asked.values()] == ["NVFP4", "FP8", "FP8"]


def test_a_pattern_for_parts_of_a_fused_layer_hits_nothing() -> None:
    """The layer is called qkv_proj, in every reader of ours too: there is one."""
    ignore = ("*.q_proj*", "*.k_proj*", "*.v_proj*")
    declared = Declaration(source="", layout=MODELOPT, algorithm="NVFP4", ignore=ignore)
    modules = [f"model.layers.0.self_attn.{p}_proj" for p in "qkv"]
    assert set(Rules(declared).algorithms(modules).values()) == {"NVFP4"}
    assert Rules(declared).idle_entries(modules) == list(ignore)


def test_the_first_layer_that_each_entry_is_about_is_the_one_found_by_itself() -> None:
    entries = [entry for ignore, _, _ in LISTS for entry in ignore]
    entries += ["re:.*", "re:.*(q|k)_proj$", "nothing", "x.experts.0", "q_proj", IN_ENGINE]
    entries += [f"{IN_FILES}.mlp.expert?*", f"{IN_FILES}.mlp.experts.5.gate_proj"]
    for layout in (MODELOPT, IN_GROUPS, NATIVE_FP8):
        every = Declaration(source="", layout=layout, algorithm="FP8", ignore=tuple(entries))
        found = Rules(every, FAMILY).first_hits(list(LAYERS.values()))
        for entry in entries:
            one = Declaration(source="", layout=layout, algorithm="FP8", ignore=(entry,))
            hit = Rules(one, FAMILY).hit_modules(entry, MODULES)
            first = next((x for x in LAYERS.values() if set(x.members) & set(hit)), None)
            assert found.get(entry) == first, (layout, entry)


def test_a_layer_that_is_fused_from_parts_of_other_names_is_listed_by_them() -> None:
    modules = [f"layers.0.attention.w{p}" for p in "qkv"]
    declared = Declaration(source="", layout=MODELOPT, algorithm="NVFP4", ignore=tuple(modules))
    assert set(Rules(declared).algorithms(modules).values()) == {None}


def test_a_name_that_ends_like_one_that_is_never_asked_is_asked() -> None:
    """`eh_proj` of a draft head is built unquantized; a tower's `proj` is none of them."""
    family = EngineFamily(mapper=Mapper(), never_asked=frozenset({"eh_proj", "wk_weights_proj"}))
    declared = Declaration(source="", layout=MODELOPT, algorithm="NVFP4")
    indexer = {f"layers.0.indexer.{part}" for part in ("wk", "weights_proj")}
    modules = ["layers.1.eh_proj", "visual.0.attn.proj", *indexer]
    assert Rules(declared, family).never_asked(modules) == {"layers.1.eh_proj", *indexer}


def mixed(layers: dict[str, str]) -> Declaration:
    named = {name: LayerDeclared(algorithm, None) for name, algorithm in layers.items()}
    return Declaration(source="", layout=MODELOPT, algorithm=MIXED, layers=named)


def test_a_mixed_checkpoint_names_its_layers() -> None:
    names = {f"{IN_FILES}.self_attn.{p}_proj": "FP8" for p in "qkv"}
    names |= {f"{IN_FILES}.mlp.experts": "W4A16_NVFP4", "lm_head": "W4A16_NVFP4"}
    rules = ENGINE.rules(mixed(names), MODEL)
    asked = {layer.name: answer.algorithm for layer, answer in rules.layers(MODULES)}
    assert asked[QKV] == "FP8"
    assert asked[EXPERTS] == asked["language_model.lm_head"] == "W4A16_NVFP4"
    assert asked[BA] is None


def test_parts_of_a_fused_layer_with_two_algorithms_stop_the_engine() -> None:
    names = {f"{IN_FILES}.self_attn.q_proj": "FP8", f"{IN_FILES}.self_attn.k_proj": "NVFP4"}
    rules = ENGINE.rules(mixed(names), MODEL)
    assert rules.ask(LAYERS[QKV]).is_split
    assert rules.algorithms([f"{IN_FILES}.self_attn.q_proj"]) == {
        f"{IN_FILES}.self_attn.q_proj": "FP8"
    }


def test_fp8_of_a_models_maker_leaves_out_exact_names_and_the_head() -> None:
    declared = Declaration(
        source="",
        layout=NATIVE_FP8,
        algorithm="FP8_PER_BLOCK",
        ignore=("model.layers.0.self_attn.o_proj", "gate"),
    )
    modules = ["lm_head", "model.layers.0.self_attn.o_proj", "model.layers.1.self_attn.o_proj"]
    modules += ["model.layers.0.mlp.experts.0.w1", "model.layers.0.mlp.gate"]
    assert Rules(declared).algorithms(modules) == {
        "lm_head": None,
        "model.layers.0.self_attn.o_proj": None,
        "model.layers.1.self_attn.o_proj": "FP8_PER_BLOCK",
        "model.layers.0.mlp.experts.0.w1": "FP8_PER_BLOCK",
        "model.layers.0.mlp.gate": "FP8_PER_BLOCK",
    }


def test_a_model_around_another_one_has_the_layers_of_both() -> None:
    outer = {
        "architectures": ["KimiK25ForConditionalGeneration"],
        "text_config": {"architectures": ["DeepseekV3ForCausalLM"]},
    }
    family = ENGINE.family_of(outer)
    assert family is not None
    assert "fused_qkv_a_proj" in family.fused
    assert "gate" in family.never_asked
    layers = [
        layer.name
        for layer in engine_layers(
            [f"language_model.model.layers.0.self_attn.{p}" for p in ("q_a_proj", "o_proj")], family
        )
    ]
    assert layers == [
        "language_model.model.layers.0.self_attn.fused_qkv_a_proj",
        "language_model.model.layers.0.self_attn.o_proj",
    ]


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.32.0", "vllm==0.32.0"),
        ("0.32.0+cpu", "vllm==0.32.0"),
        ("0.34.1", None),
        (None, None),
    ],
)
def test_a_run_applies_the_rules_of_its_own_server(version: str | None, name: str | None) -> None:
    spec = EngineSpec(
        name="vllm", numerics="deployed", device="cpu", dtype="bfloat16", version=version
    )
    assert engine_of(spec) == name
