"""Each fault is planted in a good checkpoint and must be caught by the check meant for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.artifacts import Check, IntegrityReport, Severity
from harness.errors import ModelError, RejectedError, UsageError
from harness.verify import CHECKS, refuse_errors, verify
from tests.verify.conftest import LINEARS

Tensors = dict[str, torch.Tensor]
Json = dict[str, object]


class Checkpoint(Protocol):
    folder: Path

    def change(self, edit: Callable[[Tensors], None]) -> Path: ...
    def configure(self, edit: Callable[[Json], None], *files: str) -> Path: ...
    def seal(self) -> Path: ...


Make = Callable[..., Checkpoint]
EXPERT = "model.language_model.layers.1.mlp.experts.2"
ATTENTION = "model.language_model.layers.1.self_attn"


def failed(report: IntegrityReport) -> dict[str, Check]:
    return {check.id: check for check in report.checks if not check.passed}


@pytest.mark.parametrize("scheme", ["NVFP4", "W4A16_NVFP4", "FP8"])
@pytest.mark.parametrize("kv_algo", [None, "FP8"])
def test_a_good_checkpoint_passes_every_check(
    checkpoint: Make, scheme: str, kv_algo: str | None
) -> None:
    report = verify(checkpoint(scheme, kv_algo).seal())
    assert failed(report) == {}
    assert len(report.checks) == len(CHECKS) == len({check.id for check in report.checks})
    refuse_errors(report)


def test_input_scales_are_reported_by_layer_and_kind(checkpoint: Make) -> None:
    def edit(tensors: Tensors) -> None:
        tensors[f"{EXPERT}.down_proj.input_scale"] *= 2

    report = verify(checkpoint().change(edit))
    assert report.input_scales["1.experts.down_proj"] == pytest.approx((0.01, 0.02))
    assert "0.linear_attn.in_proj_qkv" in report.input_scales


def test_deleted_expert_input_scales_are_counted(checkpoint: Make) -> None:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if ".experts." in n and n.endswith("input_scale")]:
            del tensors[name]

    report = verify(checkpoint().change(edit))
    found = failed(report)
    assert list(found) == ["expert-input-scales-complete"]
    check = found["expert-input-scales-complete"]
    assert check.message == (
        "24 of 24 expert input_scale tensors are missing "
        "(first: model.language_model.layers.0.mlp.experts.0.down_proj.input_scale)"
    )
    assert (check.num_faulty, len(check.examples)) == (24, 5)
    with pytest.raises(RejectedError, match="24 of 24 expert input_scale tensors are missing"):
        refuse_errors(report)


def drop(*names: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in names:
            del tensors[name]

    return edit


def put(name: str, value: torch.Tensor) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        tensors[name] = value

    return edit


def code(name: str, byte: int) -> Callable[[Tensors], None]:
    """Put one raw byte into an E4M3 tensor."""

    def edit(tensors: Tensors) -> None:
        raw = tensors[name].view(torch.uint8)
        raw[0, 0] = byte

    return edit


def unquantize(*names: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for name in names:
            for leaf in ("weight_scale", "weight_scale_2", "input_scale"):
                del tensors[f"{name}.{leaf}"]
            tensors[f"{name}.weight"] = torch.ones(32, 32, dtype=torch.bfloat16)

    return edit


def quantize(name: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for leaf in ("weight", "weight_scale", "weight_scale_2", "input_scale"):
            tensors[f"{name}.{leaf}"] = tensors[f"{ATTENTION}.o_proj.{leaf}"].clone()

    return edit


def delete_expert(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.startswith(f"{EXPERT}.")]:
        del tensors[name]


FAULTS: dict[str, tuple[Callable[[Tensors], None], str]] = {
    "one expert input scale": (
        drop(f"{EXPERT}.up_proj.input_scale"),
        "expert-input-scales-complete",
    ),
    "an expert": (delete_expert, "experts-complete"),
    "an expert's shape": (
        put(f"{EXPERT}.up_proj.weight", torch.zeros(16, 16, dtype=torch.uint8)),
        "experts-complete",
    ),
    "a dense input scale": (drop(f"{ATTENTION}.o_proj.input_scale"), "layer-tensors-complete"),
    "a global scale": (drop(f"{EXPERT}.up_proj.weight_scale_2"), "layer-tensors-complete"),
    "a packed weight": (drop(f"{ATTENTION}.o_proj.weight"), "layer-tensors-complete"),
    "a block scale's shape": (
        put(f"{ATTENTION}.o_proj.weight_scale", torch.ones(32, 3).to(torch.float8_e4m3fn)),
        "layer-tensors-well-formed",
    ),
    "a block scale's type": (
        put(f"{ATTENTION}.o_proj.weight_scale", torch.ones(32, 2)),
        "layer-tensors-well-formed",
    ),
    "a vector for a scalar": (
        put(f"{ATTENTION}.o_proj.input_scale", torch.full((2,), 0.01)),
        "layer-tensors-well-formed",
    ),
    "a width of no whole blocks": (
        put(f"{ATTENTION}.o_proj.weight", torch.zeros(32, 12, dtype=torch.uint8)),
        "layer-tensors-well-formed",
    ),
    "NaN in a block scale, 0x7F": (code(f"{EXPERT}.up_proj.weight_scale", 0x7F), "scales-finite"),
    "NaN in a block scale, 0xFF": (code(f"{EXPERT}.up_proj.weight_scale", 0xFF), "scales-finite"),
    "a NaN input scale": (
        put(f"{EXPERT}.up_proj.input_scale", torch.tensor(float("nan"))),
        "scales-finite",
    ),
    "an infinite global scale": (
        put(f"{ATTENTION}.o_proj.weight_scale_2", torch.tensor(float("inf"))),
        "scales-finite",
    ),
    "a zero input scale": (
        put(f"{EXPERT}.up_proj.input_scale", torch.tensor(0.0)),
        "scales-positive",
    ),
    "a negative global scale": (
        put(f"{ATTENTION}.o_proj.weight_scale_2", torch.tensor(-0.01)),
        "scales-positive",
    ),
    "a block scale of zero": (code(f"{EXPERT}.up_proj.weight_scale", 0x00), "scales-positive"),
    "an inverse scale of zero": (
        put(f"{ATTENTION}.o_proj.weight_scale_inv", torch.zeros(1, 1)),
        "scales-positive",
    ),
    "NaN among exponents": (
        put(f"{ATTENTION}.o_proj.scale", torch.tensor([[255]]).byte().view(torch.float8_e8m0fnu)),
        "scales-finite",
    ),
    "a denormal input scale": (
        put(f"{EXPERT}.up_proj.input_scale", torch.tensor(1e-40)),
        "scales-not-denormal",
    ),
    "an expert's gate apart from up": (
        put(f"{EXPERT}.up_proj.weight_scale_2", torch.tensor(0.04)),
        "expert-gate-up-scales-equal",
    ),
    "q apart from k and v": (
        put(f"{ATTENTION}.q_proj.weight_scale_2", torch.tensor(0.04)),
        "fused-scales-equal",
    ),
    "q's input scale apart": (
        put(f"{ATTENTION}.q_proj.input_scale", torch.tensor(0.04)),
        "fused-input-scales-equal",
    ),
    "an input scale of nothing": (
        put(f"{ATTENTION}.o_proj.input_scale", torch.tensor(1e-6)),
        "input-scales-plausible",
    ),
    "NaN in a norm": (
        put("model.language_model.norm.weight", torch.full((32,), float("nan")).bfloat16()),
        "weights-finite",
    ),
    "k quantized and q not": (unquantize(f"{ATTENTION}.q_proj"), "fused-layers-alike"),
    "an unquantized layer": (unquantize(f"{ATTENTION}.o_proj"), "unquantized-layers-ignored"),
    "a quantized vision layer": (
        quantize("model.visual.blocks.0.mlp.linear_fc1"),
        "routers-and-vision-unquantized",
    ),
    "a quantized router": (
        quantize("model.language_model.layers.0.mlp.gate"),
        "routers-and-vision-unquantized",
    ),
    "a quantized head that is ignored": (quantize("lm_head"), "quantized-layers-declared"),
    "a scale of keys without a KV format": (
        put(f"{ATTENTION}.k_proj.k_scale", torch.tensor(0.1)),
        "kv-scales-consistent",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_by_its_own_check(checkpoint: Make, fault: str) -> None:
    edit, check = FAULTS[fault]
    assert check in failed(verify(checkpoint().change(edit)))


def test_input_scales_of_all_experts_that_are_next_to_nothing_are_a_warning(
    checkpoint: Make,
) -> None:
    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if ".experts." in n and n.endswith("input_scale")]:
            tensors[name] = torch.tensor(1e-6)

    check = failed(verify(checkpoint().change(edit)))["input-scales-plausible"]
    assert check.num_faulty == 24
    assert check.severity is Severity.WARNING


@pytest.mark.parametrize(("byte", "check"), [(0x7F, "weights-finite"), (0xFF, "weights-finite")])
def test_nan_codes_in_fp8_weights_are_found(checkpoint: Make, byte: int, check: str) -> None:
    report = verify(checkpoint("FP8").change(code(f"{EXPERT}.up_proj.weight", byte)))
    assert list(failed(report)) == [check]


def test_experts_left_out_by_the_exporter_are_found(checkpoint: Make) -> None:
    """The historical gap: experts stay stacked and unquantized, and nothing says so."""

    def edit(tensors: Tensors) -> None:
        for name in [n for n in tensors if ".1.mlp.experts." in n and "mtp" not in n]:
            del tensors[name]
        stacked = torch.ones(4, 64, 32, dtype=torch.bfloat16)
        tensors["model.language_model.layers.1.mlp.experts.gate_up_proj"] = stacked

    found = failed(verify(checkpoint().change(edit)))
    assert "unquantized-layers-ignored" in found
    assert found["unquantized-layers-ignored"].examples == (
        "model.language_model.layers.1.mlp.experts",
    )


def test_scales_of_keys_for_all_layers_pass_and_for_some_do_not(checkpoint: Make) -> None:
    good = checkpoint("NVFP4", "FP8")

    def add(tensors: Tensors) -> None:
        tensors[f"{ATTENTION}.k_proj.k_scale"] = torch.tensor(0.1)
        tensors[f"{ATTENTION}.v_proj.v_scale"] = torch.tensor(0.2)

    assert failed(verify(good.change(add))) == {}
    half = failed(verify(good.change(drop(f"{ATTENTION}.v_proj.v_scale"))))
    assert "has no v_scale" in half["kv-scales-consistent"].message


def test_a_layer_whose_values_are_its_keys_has_the_scale_of_both(checkpoint: Make) -> None:
    def share(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.startswith(f"{ATTENTION}.v_proj.")]:
            del tensors[name]
        for which in "kv":
            tensors[f"{ATTENTION}.{which}_proj.{which}_scale"] = torch.tensor(0.1)

    assert failed(verify(checkpoint("NVFP4", "FP8").change(share))) == {}


def test_a_draft_head_that_is_one_more_layer_is_no_part_of_the_decoder(checkpoint: Make) -> None:
    """DeepSeek's and GLM's have attention, without scales of keys, and experts in 16 bits."""
    good, layer = checkpoint("NVFP4", "FP8"), "model.language_model.layers.2"

    def add(tensors: Tensors) -> None:
        for which in "kv":
            tensors[f"{ATTENTION}.{which}_proj.{which}_scale"] = torch.tensor(0.1)
            tensors[f"{layer}.self_attn.{which}_proj.weight"] = torch.ones(32, 32).bfloat16()
        tensors[f"{layer}.eh_proj.weight"] = torch.ones(32, 64).bfloat16()
        tensors[f"{layer}.mlp.experts.0.up_proj.weight"] = torch.ones(32, 32).bfloat16()

    def leave_out(said: Json) -> None:
        for key in {"ignore", "exclude_modules"} & said.keys():
            said[key] = [*cast("list[str]", said[key]), f"{layer}*"]

    good.configure(leave_out)
    assert failed(verify(good.change(add))) == {}


def test_scales_of_keys_that_the_manifest_promises_must_be_there(checkpoint: Make) -> None:
    folder = checkpoint("NVFP4", "FP8").folder
    (folder / "harness.json").write_text('{"kv_cache": "fp8_cast"}')
    assert failed(verify(folder)) == {}
    (folder / "harness.json").write_text('{"kv_cache": "fp8"}')
    assert list(failed(verify(folder))) == ["kv-scales-consistent"]


def test_a_null_algorithm_is_an_error(checkpoint: Make) -> None:
    def edit(section: Json) -> None:
        section["quant_algo"] = None

    found = failed(verify(checkpoint().configure(edit)))
    assert "quant_algo is null" in found["quantization-declared"].message


def test_an_algorithm_that_is_not_read_is_named(checkpoint: Make) -> None:
    folder = checkpoint().configure(lambda section: section.update(quant_algo="W4A8_AWQ"))
    with pytest.raises(UsageError, match=r"declares quant_algo 'W4A8_AWQ' in config\.json"):
        verify(folder)


def test_a_lower_case_algorithm_is_known(checkpoint: Make) -> None:
    def edit(section: Json) -> None:
        section["quant_algo"] = "nvfp4"

    assert failed(verify(checkpoint().configure(edit))) == {}


def test_no_declaration_is_an_error(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "config.json").write_text("{}")
    (folder / "hf_quant_config.json").unlink()
    assert "quantization-declared" in failed(verify(folder))


def test_one_declaration_of_two_is_enough(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "hf_quant_config.json").unlink()
    assert failed(verify(folder)) == {}


def test_declarations_that_contradict_each_other_are_an_error(checkpoint: Make) -> None:
    def edit(section: Json) -> None:
        section["exclude_modules"] = ["lm_head"]

    report = verify(checkpoint().configure(edit, "hf_quant_config.json"))
    assert list(failed(report)) == ["declarations-agree"]
    assert "the ignore list is 9 entries in config.json and 1 entries" in str(report)


def ignore(*patterns: str) -> Callable[[Json], None]:
    def edit(section: Json) -> None:
        key = "ignore" if "ignore" in section else "exclude_modules"
        known = section[key]
        assert isinstance(known, list)
        section[key] = [*known, *patterns]

    return edit


@pytest.mark.parametrize(
    "pattern",
    [
        f"{ATTENTION}.o_proj",
        f"{ATTENTION}*",
        "*.o_proj",
        "o_proj",
        f"{ATTENTION}.qkv_proj",
        "model.language_model.layers.1.mlp.experts*",
        f"{EXPERT}.up_proj",
    ],
)
def test_an_entry_that_also_hits_a_quantized_layer_is_an_error(
    checkpoint: Make, pattern: str
) -> None:
    found = failed(verify(checkpoint().configure(ignore(pattern))))
    assert list(found) == ["quantized-layers-declared"]


def test_an_entry_that_hits_nothing_is_a_warning(checkpoint: Make) -> None:
    report = verify(checkpoint().configure(ignore("model.language_model.layers.7.mlp")))
    check = failed(report)["ignore-patterns-used"]
    assert check.severity is Severity.WARNING
    assert report.errors == ()
    refuse_errors(report)


def test_the_head_of_tied_embeddings_may_be_ignored_without_being_there(checkpoint: Make) -> None:
    good = checkpoint()
    folder = good.change(drop("lm_head.weight"))
    assert "ignore-patterns-used" in failed(verify(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert failed(verify(folder)) == {}


def test_mixed_precision_is_read_layer_by_layer(checkpoint: Make, linears: tuple[str, ...]) -> None:
    def edit(section: Json) -> None:
        section["quant_algo"] = "MIXED_PRECISION"
        section["quantized_layers"] = {name: {"quant_algo": "NVFP4"} for name in linears}
        section["exclude_modules" if "exclude_modules" in section else "ignore"] = []

    good = checkpoint()
    assert failed(verify(good.configure(edit))) == {}

    def forget(section: Json) -> None:
        layers = section["quantized_layers"]
        assert isinstance(layers, dict)
        del layers[f"{ATTENTION}.o_proj"]

    assert list(failed(verify(good.configure(forget)))) == ["quantized-layers-declared"]


def test_a_shard_that_was_cut_off_is_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    shard = folder / "model-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    check = failed(verify(folder))["shards-complete"]
    assert "model-00001-of-00002.safetensors ends 100 bytes early" in check.message


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 16, b"\x02\0\0\0\0\0\0\0[]"])
def test_a_shard_without_a_header_is_found(checkpoint: Make, content: bytes) -> None:
    folder = checkpoint().folder
    (folder / "model-00001-of-00002.safetensors").write_bytes(content)
    assert next(iter(failed(verify(folder)))) == "shards-complete"


def test_a_missing_shard_is_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "model-00002-of-00002.safetensors").unlink()
    check = failed(verify(folder))["index-matches-shards"]
    assert "model-00002-of-00002.safetensors is missing" in check.message


def test_tensors_that_the_index_and_the_shards_do_not_share_are_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    del index["weight_map"]["lm_head.weight"]
    path.write_text(json.dumps(index))
    check = failed(verify(folder))["index-matches-shards"]
    assert check.num_faulty == 2
    assert any("ghost.weight is not in" in line for line in check.examples)
    assert any("lm_head.weight is in" in line for line in check.examples)


def test_a_broken_index_is_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "model.safetensors.index.json").write_text('{"weight_map": 3}')
    assert list(failed(verify(folder))) == ["index-matches-shards"]


def test_several_shards_without_an_index_are_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "model.safetensors.index.json").unlink()
    assert list(failed(verify(folder))) == ["index-matches-shards"]


def test_a_tensor_in_two_shards_is_found(checkpoint: Make) -> None:
    folder = checkpoint().folder
    first, second = sorted(folder.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)
    assert f"{name} is in 2 files" in str(failed(verify(folder))["index-matches-shards"])


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_file_beside_the_weights_is_a_warning_and_no_other_check_sees_it(
    checkpoint: Make, *, is_indexed: bool
) -> None:
    folder = checkpoint().folder
    if not is_indexed:
        shards = sorted(folder.glob("*.safetensors"))
        merged = {n: t for shard in shards for n, t in load_file(shard).items()}
        for path in (*shards, folder / "model.safetensors.index.json"):
            path.unlink()
        save_file(merged, folder / "model.safetensors")
    foreign = {"layers.0.attention.wq.weight": torch.full((4, 4), float("nan"))}
    save_file(foreign, folder / "consolidated.safetensors")
    faults = failed(verify(folder))
    assert list(faults) == ["weight-files-listed"]
    assert faults["weight-files-listed"].severity is Severity.WARNING


def test_a_file_changed_since_the_export_is_found(checkpoint: Make) -> None:
    folder = checkpoint().seal()
    shard = folder / "model-00002-of-00002.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    check = failed(verify(folder))["files-match-manifest"]
    assert check.examples == ("model-00002-of-00002.safetensors has changed",)


def test_a_file_lost_since_the_export_is_found(checkpoint: Make) -> None:
    folder = checkpoint().seal()
    (folder / "hf_quant_config.json").unlink()
    assert "hf_quant_config.json is missing" in str(failed(verify(folder)))


def test_a_model_that_is_not_quantized_is_refused(checkpoint: Make) -> None:
    good = checkpoint()

    def edit(tensors: Tensors) -> None:
        for name in list(tensors):
            if "_scale" in name or tensors[name].dtype is not torch.bfloat16:
                del tensors[name]

    assert "quantized-layers-exist" in failed(verify(good.change(edit)))


@pytest.mark.parametrize(
    "leaf",
    [
        "weight_quantizer._amax",
        "weight_quantizer._scale",
        "weight_quantizer._double_scale",
        "input_quantizer._pre_quant_scale",
        "input_quantizer._bias_value",
        "k_bmm_quantizer._amax",
        "gate_up_proj_weight_quantizers.3._amax",
        "weight_quantizer._extra_state",
        "weight_observer.min_val",
        "activation_post_process.max_val",
        "_amax",
        "_double_scale",
        "weight_amax",
    ],
)
def test_state_that_a_quantizer_left_is_found_without_a_source(checkpoint: Make, leaf: str) -> None:
    name = f"{ATTENTION}.o_proj.{leaf}"
    faults = failed(verify(checkpoint().change(put(name, torch.tensor(1.0)))))
    assert faults["quantizer-state-removed"].examples == (name,)


@pytest.mark.parametrize(
    "name", [f"{ATTENTION}.o_proj.pre_quant_scale", "model.audio.quantizer.codebook"]
)
def test_tensors_that_engines_read_are_no_leftovers(checkpoint: Make, name: str) -> None:
    faults = failed(verify(checkpoint().change(put(name, torch.ones(4)))))
    assert "quantizer-state-removed" not in faults


def indexer(tensors: Tensors) -> None:
    """Put an indexer there whose `wk` alone is quantized."""
    for leaf in ("weight", "weight_scale", "weight_scale_2", "input_scale"):
        if (name := f"{ATTENTION}.o_proj.{leaf}") in tensors:
            tensors[f"{ATTENTION}.indexer.wk.{leaf}"] = tensors[name].clone()
    tensors[f"{ATTENTION}.indexer.weights_proj.weight"] = torch.ones(4, 32).bfloat16()


@pytest.mark.parametrize(("scheme", "is_alike"), [("FP8", True), ("NVFP4", False)])
def test_an_indexers_half_may_be_in_fp8_which_engines_turn_back(
    checkpoint: Make, scheme: str, *, is_alike: bool
) -> None:
    faults = failed(verify(checkpoint(scheme).change(indexer)))
    assert ("fused-layers-alike" not in faults) is is_alike


EMBEDDING = "model.language_model.embed_tokens"


def mixed(section: Json) -> None:
    """Name each layer with its algorithm, the embedding among them."""
    names = [*LINEARS, EMBEDDING]
    layers = {name: {"quant_algo": "NVFP4", "group_size": 16} for name in names}
    section |= {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}


def test_an_embedding_that_the_declaration_names_is_a_warning_with_the_engines(
    checkpoint: Make,
) -> None:
    good = checkpoint()
    good.configure(mixed)
    folder = good.change(quantize(EMBEDDING))
    fault = failed(verify(folder))["embeddings-and-norms-unquantized"]
    assert fault.severity is Severity.WARNING
    assert "SGLang loads" in fault.message
    assert "no vLLM" in fault.message


def test_such_an_embedding_is_an_error_for_an_engine_that_does_not_load_it(
    checkpoint: Make,
) -> None:
    good = checkpoint()
    good.configure(mixed)
    folder = good.change(quantize(EMBEDDING))
    faults = failed(verify(folder, engine="vllm==0.32.0"))
    assert faults["embeddings-and-norms-unquantized"].severity is Severity.ERROR


def test_an_embedding_that_no_declaration_names_is_an_error(checkpoint: Make) -> None:
    fault = failed(verify(checkpoint().change(quantize(EMBEDDING))))
    assert fault["embeddings-and-norms-unquantized"].severity is Severity.ERROR


def test_a_group_size_that_one_declaration_leaves_out_is_no_contradiction(checkpoint: Make) -> None:
    def edit(section: Json) -> None:
        del section["group_size"]

    assert failed(verify(checkpoint().configure(edit, "hf_quant_config.json"))) == {}


def test_a_bias_of_zeros_is_no_empty_matrix(checkpoint: Make) -> None:
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj_bias"
    assert failed(verify(checkpoint().change(put(name, torch.zeros(4, 32).bfloat16())))) == {}


def test_a_folder_that_is_no_checkpoint_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is no checkpoint"):
        verify(tmp_path)
    with pytest.raises(ModelError, match="is no checkpoint"):
        verify(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="holds no JSON object"):
        verify(tmp_path)
