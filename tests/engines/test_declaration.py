"""What is declared: in which place, in whose words, and what of it engines do not read."""

from collections.abc import Mapping
from typing import Any

import pytest

from harness.engines import (
    KV,
    MIXED,
    Declaration,
    contradictions,
    read_declarations,
    refuse_unread,
)
from harness.errors import ReasonCode, UsageError

Json = dict[str, Any]
FLAT: Json = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
NESTED: Json = {
    "producer": {"name": "modelopt", "version": "0.33.0"},
    "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head", "*.gate"]},
}
FP8_KV = {"dynamic": False, "num_bits": 8, "type": "float"}
NATIVE: Json = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}


def decisive(config: Mapping[str, object], sidecar: Mapping[str, object] = {}) -> Declaration:
    return read_declarations(config, sidecar)[0]


def flat(**changes: object) -> Declaration:
    return decisive({"quantization_config": FLAT | changes})


@pytest.mark.parametrize(
    ("config", "sidecar", "source", "algorithm"),
    [
        ({"quantization_config": FLAT}, NESTED, "config.json", "NVFP4"),
        ({"text_config": {"quantization_config": FLAT}}, NESTED, "hf_quant_config.json", "FP8"),
        (
            {"text_config": {"quantization_config": FLAT}},
            {},
            "text_config of config.json",
            "NVFP4",
        ),
        ({"compression_config": FLAT}, {}, "config.json", "NVFP4"),
        ({"quantization_config": {"quantization": NESTED["quantization"]}}, {}, None, "FP8"),
    ],
)
def test_the_first_place_that_says_anything_counts(
    config: Json, sidecar: Json, source: str | None, algorithm: str
) -> None:
    found = decisive(config, sidecar)
    assert found.algorithm == algorithm
    assert source in (None, found.source)


def test_nothing_is_declared_by_an_unquantized_model() -> None:
    assert read_declarations({"model_type": "qwen3", "text_config": {}}, {}) == ()


def test_an_empty_declaration_hides_the_next_one() -> None:
    """vLLM takes any mapping that is there for the declaration."""
    found = decisive({"quantization_config": {}}, NESTED)
    assert (found.source, found.algorithm, found.malformed) == ("config.json", None, ())


def test_mixed_layers_are_looked_for_in_the_sidecar_where_config_json_names_none() -> None:
    layers = {"model.layers.0.mlp.experts": {"quant_algo": "nvfp4"}}
    sidecar = {"quantization": {"quant_algo": MIXED, "quantized_layers": layers}}
    found = decisive({"quantization_config": FLAT | {"quant_algo": MIXED}}, sidecar)
    assert found.source == "hf_quant_config.json"
    assert found.layers["model.layers.0.mlp.experts"] == ("NVFP4", 16)


@pytest.mark.parametrize(
    ("named", "algorithm"),
    [("nvfp4", "NVFP4"), ("FP8_BLOCK_SCALES", "FP8_PB_WO"), ("fp8_pb_wo", "FP8_PB_WO")],
)
def test_an_algorithm_has_one_name(named: str, algorithm: str) -> None:
    found = flat(quant_algo=named)
    assert (found.algorithm, found.unread) == (algorithm, None)


def test_keys_and_values_are_read_in_the_words_of_each_place() -> None:
    assert flat(kv_cache_scheme=FP8_KV).kv_algorithm == "FP8"
    nested = {"quantization": NESTED["quantization"] | {"kv_cache_quant_algo": "fp8"}}
    assert decisive({}, nested).kv_algorithm == "FP8"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kv_cache_scheme": "FP8"}, "kv_cache_scheme is the word 'FP8'"),
        ({"kv_cache_quant_algo": "FP8"}, "kv_cache_quant_algo stands flat"),
        ({"quant_method": None}, "names no quant_method"),
    ],
)
def test_words_that_engines_do_not_read_are_told(changes: Json, told: str) -> None:
    (found,) = flat(**changes).unseen
    assert told in found


def test_a_list_under_the_name_of_the_other_place_excludes_nothing() -> None:
    said = {key: value for key, value in FLAT.items() if key != "ignore"}
    found = decisive({"quantization_config": said | {"exclude_modules": ["lm_head"]}})
    assert found.ignore == ()
    assert "exclude_modules stands where engines read ignore" in found.unseen[0]
    assert decisive({}, NESTED).ignore == ("lm_head", "*.gate")


def test_a_nested_mixed_declaration_stops_vllm() -> None:
    sidecar = NESTED | {"quantization": {"quant_algo": MIXED, "quantized_layers": {"a": {}}}}
    (told,) = decisive({}, sidecar).unseen
    assert told.startswith("vLLM stops at a nested quant_algo MIXED_PRECISION")


def test_two_files_contradict_each_other_where_both_speak() -> None:
    quantization = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}
    agreeing = {"quantization": quantization | {"kv_cache_quant_algo": "FP8"}}
    assert contradictions(read_declarations({"quantization_config": FLAT}, agreeing)) == []
    assert contradictions(read_declarations({"quantization_config": FLAT}, NESTED)) == [
        "quant_algo is 'NVFP4' in config.json and 'FP8' in hf_quant_config.json",
        "the ignore list is 1 entries in config.json and 2 entries in hf_quant_config.json",
    ]
    word = FLAT | {"kv_cache_scheme": "NVFP4"}
    (kv,) = contradictions(read_declarations({"quantization_config": word}, agreeing))
    assert kv.startswith(f"{KV} is 'NVFP4' in config.json")


def test_another_spelling_is_no_contradiction() -> None:
    one = {"quant_algo": MIXED, "quantized_layers": {"a": {"quant_algo": "FP8_PB_WO"}}}
    other = {"quant_algo": MIXED, "quantized_layers": {"a": {"quant_algo": "FP8_BLOCK_SCALES"}}}
    config = {"quantization_config": {"quant_method": "modelopt"} | one}
    assert contradictions(read_declarations(config, {"quantization": other})) == []


def test_what_was_left_in_text_config_contradicts_nothing() -> None:
    config = {"text_config": {"quantization_config": FLAT}}
    assert contradictions(read_declarations(config, NESTED)) == []


@pytest.mark.parametrize(
    ("section", "algorithm", "ignore"),
    [
        (NATIVE | {"modules_to_not_convert": ["gate"]}, "FP8_PER_BLOCK", ("gate",)),
        (NATIVE | {"ignored_layers": ["a"]}, "FP8_PER_BLOCK", ("a",)),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "FP8", ()),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "FP8_PER_TENSOR_DYNAMIC", ()),
    ],
)
def test_fp8_of_a_models_maker_is_read(
    section: Json, algorithm: str, ignore: tuple[str, ...]
) -> None:
    found = decisive({"quantization_config": section})
    assert (found.layout, found.algorithm, found.ignore) == ("fp8", algorithm, ignore)
    assert found.unread is None


def test_experts_of_deepseek_v4_have_an_algorithm_of_their_own() -> None:
    config = {"model_type": "deepseek_v4", "quantization_config": NATIVE}
    assert decisive(config).experts_algorithm == "MXFP4"
    assert decisive(config | {"expert_dtype": "fp8"}).experts_algorithm is None
    named = NATIVE | {"moe_quant_algo": "NVFP4"}
    assert decisive(config | {"quantization_config": named}).experts_algorithm == "NVFP4"
    assert decisive({"quantization_config": NATIVE}).experts_algorithm is None


def group(**weights: object) -> Json:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "config_groups": groups}


@pytest.mark.parametrize(
    ("section", "named"),
    [
        (FLAT | {"quant_algo": "W4A8_AWQ"}, "quant_algo 'W4A8_AWQ'"),
        (
            FLAT | {"quant_algo": MIXED, "quantized_layers": {"a": {"quant_algo": "INT4_AWQ"}}},
            "layers with quant_algo 'INT4_AWQ'",
        ),
        ({"quant_method": "quark"}, "quant_method 'quark'"),
        (NATIVE | {"weight_block_size": [64, 64]}, r"FP8 in blocks of \[64, 64\]"),
        (
            group(num_bits=4, type="int", strategy="group", group_size=32),
            "4-bit integers in groups of 32",
        ),
        (group(num_bits=8, type="int", strategy="channel"), "8-bit integers by channel"),
        (
            group(num_bits=4, type="float", strategy="group", scale_dtype="torch.uint8"),
            "MXFP4",
        ),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(section: Json, named: str) -> None:
    found = decisive({"quantization_config": section})
    with pytest.raises(UsageError, match=f"'folder' declares {named}.* in config.json") as caught:
        refuse_unread(found, "folder")
    assert caught.value.reason is ReasonCode.UNSUPPORTED_FORMAT


def test_a_scale_a_head_is_known_of_keys_and_values() -> None:
    section = group(num_bits=8, type="float", strategy="tensor")
    scheme = FP8_KV | {"strategy": "attn_head"}
    found = decisive({"quantization_config": section | {"kv_cache_scheme": scheme}})
    assert (found.kv_algorithm, found.kv_is_static, found.kv_is_per_head) == ("FP8", True, True)


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ([], "the declaration is no mapping"),
        (FLAT | {"ignore": "lm_head"}, "ignore is no list of names"),
        (FLAT | {"kv_cache_scheme": 8}, "kv_cache_scheme is no mapping"),
        (FLAT | {"quantized_layers": []}, "quantized_layers is no mapping"),
        ({"quant_method": "modelopt", "quantization": 3}, "quantization is no mapping"),
    ],
)
def test_another_form_than_engines_go_by_is_told(section: object, told: str) -> None:
    (found,) = decisive({"quantization_config": section}).malformed
    assert told in found
