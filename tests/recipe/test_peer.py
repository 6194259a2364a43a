"""Recipes of Model-Optimizer: what they import, what they mean, and what is refused by name."""

import re
from pathlib import Path

import pytest

from harness.artifacts import (
    MIXED,
    Algorithm,
    InputRanges,
    Inventory,
    KvFormat,
    Matching,
    Recipe,
    Scales,
)
from harness.errors import RecipeError
from harness.models import open_source, read_inventory
from harness.recipe import Request, load_recipe, plan

OFF = "    - {quantizer_name: '*', enable: false}\n"
NVFP4 = "{num_bits: e2m1, block_sizes: {-1: 16, type: dynamic, scale_bits: e4m3}}"
FP8 = "{num_bits: e4m3, axis: null}"
WEIGHTS = f"    - {{quantizer_name: '*weight_quantizer', cfg: {NVFP4}}}\n"


def written(folder: Path, entries: str, *, algorithm: str = "max", head: str = "") -> Path:
    path = folder / "own.yaml"
    text = "metadata: {recipe_type: ptq, description: of a test}\n"
    text += f"quantize:\n  algorithm: {algorithm}\n  quant_cfg:\n{entries}"
    path.write_text(head + text, encoding="utf-8")
    return path


def loaded(path: Path) -> Recipe:
    return load_recipe(Request(model="canary", recipe=path))


def rules(path: Path) -> list[tuple[str, str]]:
    return [(rule.quantizer, rule.format) for rule in loaded(path).rules]


def test_entries_become_rules_in_their_order(tmp_path: Path) -> None:
    entries = OFF + WEIGHTS + "    - {quantizer_name: '*lm_head*', enable: false}\n"
    path = written(tmp_path, entries)
    assert rules(path) == [("*", "none"), ("*weight_quantizer", "nvfp4"), ("*lm_head*", "none")]
    recipe = loaded(path)
    assert (recipe.name, recipe.matching, recipe.exclude) == ("own", Matching.PEER, ())


@pytest.mark.parametrize(
    ("kind", "cfg", "form"),
    [
        ("weight", NVFP4, "nvfp4"),
        ("weight", "{num_bits: [4, 3]}", "fp8"),
        ("weight", "{num_bits: E4M3, axis: 0}", "fp8_channel"),
        ("weight", "{num_bits: e4m3, block_sizes: {-1: 128, -2: 128}}", "fp8_block"),
        (
            "weight",
            "{num_bits: e4m3, block_sizes: {-1: 32, type: dynamic, scale_bits: e8m0}}",
            "mxfp8",
        ),
        (
            "weight",
            "{num_bits: e2m1, block_sizes: {-1: 32, type: dynamic, scale_bits: [8, 0]}}",
            "mxfp4",
        ),
        ("input", "{num_bits: e4m3, type: dynamic, block_sizes: {-1: null}}", "fp8_token"),
    ],
)
def test_numbers_have_a_format(tmp_path: Path, kind: str, cfg: str, form: str) -> None:
    entry = f"    - {{quantizer_name: '*{kind}_quantizer', cfg: {cfg}}}\n"
    assert rules(written(tmp_path, OFF + entry))[1:] == [(f"*{kind}_quantizer", form)]


@pytest.mark.parametrize(
    ("cfg", "kept"),
    [(FP8, KvFormat.FP8), ("{num_bits: e4m3, use_constant_amax: true}", KvFormat.FP8_CAST)],
)
def test_keys_and_values_have_a_format(tmp_path: Path, cfg: str, kept: KvFormat) -> None:
    entry = f"    - {{quantizer_name: '*[kv]_bmm_quantizer', cfg: {cfg}}}\n"
    path = written(tmp_path, OFF + WEIGHTS + entry)
    assert loaded(path).kv_cache is kept
    assert loaded(written(tmp_path, OFF + entry + OFF + WEIGHTS)).kv_cache is KvFormat.NONE


def test_imports_are_put_in_their_place(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "off.yaml").write_text("quantizer_name: '*'\nenable: false\n")
    (library / "numbers.yml").write_text("num_bits: e4m3\naxis:\n")
    both = "imports: {numbers: library/numbers}\n---\n"
    both += "- quantizer_name: '*weight_quantizer'\n  cfg: {$import: numbers}\n"
    both += "- quantizer_name: '*input_quantizer'\n  cfg: {$import: numbers}\n"
    (library / "both.yaml").write_text(both)
    head = "imports: {off: library/off, both: library/both.yaml, numbers: library/numbers}\n"
    entries = "    - $import: off\n    - $import: both\n"
    entries += "    - quantizer_name: '*o_proj.weight_quantizer'\n"
    entries += "      cfg: {$import: numbers, axis: 0}\n"
    nested = tmp_path / "mine" / "deep"
    nested.mkdir(parents=True)
    assert rules(written(nested, entries, head=head)) == [
        ("*", "none"),
        ("*weight_quantizer", "fp8"),
        ("*input_quantizer", "fp8"),
        ("*o_proj.weight_quantizer", "fp8_channel"),
    ]


@pytest.mark.parametrize(
    ("imports", "message"),
    [
        ("{other: nowhere/at/all}", "imports.other: there is no file 'nowhere/at/all'"),
        ("{other: own}", "imports itself"),
        ("[other]", "imports: no mapping of names to files"),
        ("{}", r"'\$import: other' names none of the imports \(none\)"),
    ],
)
def test_a_broken_import_is_refused(tmp_path: Path, imports: str, message: str) -> None:
    path = written(tmp_path, OFF + "    - $import: other\n", head=f"imports: {imports}\n")
    with pytest.raises(RecipeError, match=message):
        loaded(path)


@pytest.mark.parametrize(
    ("cfg", "key"),
    [
        ("{num_bits: 8}", "num_bits: 8"),
        ("{num_bits: e3m2}", "num_bits: 'e3m2'"),
        (NVFP4.replace("dynamic", "block"), "block_sizes: {-1: 16, 'type': 'block'"),
        (NVFP4.replace("16", "32"), "block_sizes: {-1: 32"),
        (NVFP4.replace("}}", "}, four_over_six: true}"), "four_over_six"),
        (NVFP4.replace("}}", "}, constant_amax: 2688.0}"), "constant_amax"),
        (NVFP4.replace("}}", "}, rotate: true}"), "rotate"),
        (NVFP4.replace("}}", "}, colour: red}"), "colour"),
        ("{num_bits: e4m3, axis: 1}", "axis: 1"),
    ],
)
def test_numbers_that_no_format_has_are_refused(tmp_path: Path, cfg: str, key: str) -> None:
    path = written(tmp_path, OFF + f"    - {{quantizer_name: '*weight_quantizer', cfg: {cfg}}}\n")
    where = f"quantize.quant_cfg[1] ('*weight_quantizer').cfg.{key}"
    with pytest.raises(RecipeError, match=re.escape(where)) as caught:
        loaded(path)
    assert "is not supported. Supported" in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        (f"{{quantizer_name: '*output_quantizer', cfg: {FP8}}}", "quantizer_name"),
        (f"{{quantizer_name: '*mlp*', cfg: {FP8}}}", "quantizer_name"),
        (f"{{quantizer_name: '*[qkv]_bmm_quantizer', cfg: {FP8}}}", "quantizer_name"),
        (f"{{quantizer_name: '*k_bmm_quantizer', cfg: {FP8}}}", "quantizer_name"),
        (f"{{quantizer_name: '*weight_quantizer', cfg: [{FP8}, {FP8}]}}", "cfg"),
        ("{quantizer_name: '*weight_quantizer', enable: true}", "enable"),
        (
            f"{{quantizer_name: '*weight_quantizer', parent_class: nn.Linear, cfg: {FP8}}}",
            "parent_class",
        ),
        ("{quantizer_name: '*weight_quantizer', colour: red}", "colour"),
    ],
)
def test_quantizers_without_a_counterpart_are_refused(tmp_path: Path, entry: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"quant_cfg\[1\] \('.*'\)\.{key}: .* is not supported"):
        loaded(written(tmp_path, f"{OFF}    - {entry}\n"))


def test_what_would_be_left_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"what is left on \(INT8\) is not supported"):
        loaded(written(tmp_path, WEIGHTS))


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("awq_lite", "quantize.algorithm"),
        ("{method: mse}", "quantize.algorithm.method"),
        ("{method: mse, fp8_scale_sweep: true, step_size: 0.2}", "quantize.algorithm.method"),
        ("{method: mse, fp8_scale_sweep: [true]}", "quantize.algorithm.method"),
        ("{method: [mse]}", "quantize.algorithm.method"),
        ("{method: gptq}", "quantize.algorithm.method"),
        ("{method: max, colour: red}", "quantize.algorithm.colour"),
        ("{method: max, sync_expert_weight_amax: true}", "quantize.algorithm.sync_expert"),
        ("[max, awq_lite]", "quantize.algorithm"),
    ],
)
def test_other_algorithms_are_refused(tmp_path: Path, algorithm: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"{key}.* is not supported"):
        loaded(written(tmp_path, OFF + WEIGHTS, algorithm=algorithm))


STATIC = NVFP4.replace("dynamic", "static")
FOUR_OR_SIX = STATIC.replace("static", "static, four_over_six: true")
SWEEP = "{method: mse, fp8_scale_sweep: true}"
FOUR_AND_SIX = (
    "{method: mse, fp8_scale_sweep: false, start_multiplier: 1.0, stop_multiplier: 1.5, "
    "step_size: 0.5}"
)


def weights(numbers: str, pattern: str = "*") -> str:
    return f"    - {{quantizer_name: '{pattern}weight_quantizer', cfg: {numbers}}}\n"


@pytest.mark.parametrize(
    ("algorithm", "numbers", "scales"),
    [
        (SWEEP, STATIC, Scales.MSE),
        (FOUR_AND_SIX, FOUR_OR_SIX, Scales.FOUR_OVER_SIX),
        ("{method: local_hessian, fp8_scale_sweep: true}", STATIC, Scales.LOCAL_HESSIAN),
        ("max", STATIC, Scales.MAX),
        (SWEEP, NVFP4, Scales.MAX),  # it chooses no dynamic scale
        (SWEEP, FP8, Scales.MAX),
    ],
)
def test_algorithms_that_choose_scales_of_blocks_are_ours(
    tmp_path: Path, algorithm: str, numbers: str, scales: Scales
) -> None:
    recipe = loaded(written(tmp_path, OFF + weights(numbers), algorithm=algorithm))
    assert recipe.algorithm == Algorithm(scales=scales)


@pytest.mark.parametrize(
    ("weight_scales", "numbers", "scales"),
    [
        ("", NVFP4, Scales.MAX),
        (", weight_scale_algorithm: local_hessian", STATIC, Scales.LOCAL_HESSIAN),
    ],
)
def test_headroom_for_inputs_goes_with_what_scales_weights(
    tmp_path: Path, weight_scales: str, numbers: str, scales: Scales
) -> None:
    algorithm = f"{{method: nvfp4_act_headroom, rho: 16384{weight_scales}}}"
    recipe = loaded(written(tmp_path, OFF + weights(numbers), algorithm=algorithm))
    assert recipe.algorithm == Algorithm(scales=scales, inputs=InputRanges.ACT_HEADROOM)


def test_other_headroom_is_refused_with_the_setting(tmp_path: Path) -> None:
    algorithm = "{method: nvfp4_act_headroom, rho: 4096}"
    with pytest.raises(RecipeError, match=r"algorithm\.rho: 4096 is not supported"):
        loaded(written(tmp_path, OFF + weights(NVFP4), algorithm=algorithm))


@pytest.mark.parametrize(
    ("algorithm", "entries"),
    [
        (SWEEP, weights(FOUR_OR_SIX)),
        (FOUR_AND_SIX, weights(STATIC)),
        ("max", weights(FOUR_OR_SIX)),
        (SWEEP, weights(NVFP4) + weights(STATIC, "*experts*")),
    ],
)
def test_an_algorithm_that_reaches_some_weights_alone_is_refused(
    tmp_path: Path, algorithm: str, entries: str
) -> None:
    with pytest.raises(RecipeError, match="where some blocks' scales are"):
        loaded(written(tmp_path, OFF + entries, algorithm=algorithm))


@pytest.mark.parametrize("algorithm", ["null", "{method: max, layerwise: {enable: true}}"])
def test_algorithms_that_change_no_number_are_taken(tmp_path: Path, algorithm: str) -> None:
    assert loaded(written(tmp_path, OFF + WEIGHTS, algorithm=algorithm)).rules


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("metadata: {recipe_type: auto_quantize}\nauto_quantize: {}\n", "metadata.recipe_type"),
        ("num_bits: e4m3\naxis:\n", "num_bits"),
        ("- {quantizer_name: '*', enable: false}\n", "the whole file"),
        ("metadata: {recipe_type: ptq}\nquantize: {quant_cfg: []}\n", "quantize.quant_cfg"),
        ("metadata: {recipe_type: ptq}\nquantize: {}\ntrain: {}\n", "train"),
    ],
)
def test_what_is_no_recipe_for_quantizing_is_refused(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=f"', {re.escape(key)}: .* is not supported"):
        loaded(path)


def test_a_preset_without_metadata_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text(f"algorithm: max\nquant_cfg:\n{OFF}{WEIGHTS}", encoding="utf-8")
    assert rules(path)[1] == ("*weight_quantizer", "nvfp4")


def test_a_rule_may_match_nothing_and_matches_the_peers_names_alone(
    tmp_path: Path, moe: Inventory
) -> None:
    """gate_proj is a name of the files; quantizers of experts are called gate_up_proj there."""
    entries = OFF + "".join(
        f"    - {{quantizer_name: '{pattern}', cfg: {cfg}}}\n"
        for pattern, cfg in (
            ("*experts.*.gate_proj.weight_quantizer", FP8),
            ("*nothing*weight_quantizer", FP8),
            ("*experts*weight_quantizer", NVFP4),
            ("*self_attn*weight_quantizer", FP8),
            ("*self_attn*input_quantizer", FP8),
        )
    )
    made = plan(loaded(written(tmp_path, entries)), moe)
    assert made.scheme == MIXED
    formats = {q.linear.name.split(".")[3]: q.weight_format for q in made.quantized}
    assert formats == {"mlp": "nvfp4", "self_attn": "fp8"}


def test_a_tower_that_is_left_on_is_refused(tmp_path: Path) -> None:
    canary = read_inventory(open_source("canary"))
    mlp = f"    - {{quantizer_name: '*mlp*weight_quantizer', cfg: {NVFP4}}}\n"
    gate = "    - {quantizer_name: '*shared_expert_gate*', enable: false}\n"
    name = r"rule '\*mlp\*weight_quantizer' turns on 'model.visual.blocks.0.mlp.linear_fc1"
    with pytest.raises(RecipeError, match=name):
        plan(loaded(written(tmp_path, OFF + mlp + gate)), canary)
    off = "    - {quantizer_name: '*visual*', enable: false}\n"
    assert plan(loaded(written(tmp_path, OFF + mlp + gate + off)), canary).quantized
