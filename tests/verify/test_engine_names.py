"""The engine's rules, against answers of vLLM 0.32.0's own code.

`ModelOptQuantConfigBase.is_layer_excluded` and `should_ignore_layer` of vLLM 0.32.0, after
`apply_vllm_mapper` and for the names of Qwen3.5-MoE, gave the same answers as the code under test
in 442 of 442 cases; this is a selection.
"""

import pytest

from harness.artifacts import EngineSpec
from harness.formats.compressed import Group
from harness.verify import engine_of, find_engine
from harness.verify.engine_names import (
    Asked,
    CompressedList,
    EngineLayer,
    ModeloptList,
    engine_layers,
    unknown_projections,
)

ENGINE = find_engine("vllm==0.32.0")
FAMILY = ENGINE.families["qwen3_5_moe"]
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
YES, NO = Asked(is_quantized=True), Asked(is_quantized=False)
SPLIT = Asked(is_quantized=True, is_split=True)

MODELOPT: tuple[tuple[list[str], str, Asked], ...] = (
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
    assert LAYERS[QKV].parts == tuple(f"{IN_ENGINE}.self_attn.{p}_proj" for p in "qkv")
    assert LAYERS[EXPERTS].is_routed
    assert len(LAYERS[EXPERTS].members) == 6


@pytest.mark.parametrize(("ignore", "layer", "expected"), MODELOPT)
def test_modelopts_list_is_read_as_the_engine_reads_it(
    ignore: list[str], layer: str, expected: Asked
) -> None:
    assert ModeloptList(ignore, FAMILY).ask(LAYERS[layer]) == expected


GROUPS = (Group(name="g", targets=("Linear",), algorithm="NVFP4", format="x"),)
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
    assert CompressedList(ignore, GROUPS, ENGINE, FAMILY).ask(LAYERS[layer]) == expected


def test_an_expression_for_the_whole_counts_from_version_to_version() -> None:
    """0.25.0 asks about the parts of a fused layer alone, later versions about the whole first."""
    layer = EngineLayer(QKV, LAYERS[QKV].members, is_routed=False)
    asked = {
        version: CompressedList(["re:.*qkv_proj"], GROUPS, find_engine(version), FAMILY).ask(layer)
        for version in ("vllm==0.25.0", "vllm==0.32.0")
    }
    assert asked == {"vllm==0.25.0": YES, "vllm==0.32.0": NO}


def test_the_loader_of_mixtral_takes_other_projections_since_0_32() -> None:
    modules = ("model.layers.0.block_sparse_moe.experts.0.gate_proj",)
    old, new = (find_engine(f"vllm==0.{v}.0").families["mixtral"] for v in (25, 32))
    assert unknown_projections(modules, old) == {
        "model.layers.0.block_sparse_moe.experts": ("gate_proj",)
    }
    assert unknown_projections(modules, new) == {}


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
