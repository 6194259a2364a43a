"""Faults of what is said beside the weights: configurations, ignore lists, sidecars, shards."""

import json

from harness.drill.fault import MODELOPT, VLLM, Faults
from harness.drill.tampering import CONFIG, HF_CONFIG, Files

_CUT_BYTES = 4096
_PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
)


fault = Faults()


@fault(VLLM + "issues/47215", "both configurations say FP8, the tensors are NVFP4")
def _algorithm_not_that_of_the_tensors(files: Files) -> None:
    files.declare(algo="FP8")


@fault(
    VLLM + "issues/54189",
    "a weight-only checkpoint declares NVFP4 inputs, of which it has no scale",
    of="w4a16_nvfp4",
)
def _weight_only_declared_with_inputs(files: Files) -> None:
    files.declare(algo="NVFP4")


@fault(VLLM + "issues/47215", "hf_quant_config.json says FP8, config.json says NVFP4")
def _configurations_contradict(files: Files) -> None:
    files.json(HF_CONFIG)["quantization"]["quant_algo"] = "FP8"


@fault(MODELOPT + "pull/2202", "quant_algo is null")
def _algorithm_null(files: Files) -> None:
    files.declare(algo=None)


@fault(MODELOPT + "pull/1323", "no configuration says that the checkpoint is quantized")
def _quantization_not_declared(files: Files) -> None:
    del files.json(CONFIG)["quantization_config"]
    (files.folder / HF_CONFIG).unlink()


@fault(VLLM + "issues/52501", "the unquantized lm_head is not on the ignore list")
def _lm_head_not_ignored(files: Files) -> None:
    files.declare(ignore=lambda entries: [e for e in entries if e != "lm_head"])


@fault(
    MODELOPT + "pull/1858",
    "the attention, which the recipe leaves as it is, is not on the ignore list",
    of="nvfp4_mlp_only",
)
def _attention_not_ignored(files: Files) -> None:
    files.declare(ignore=lambda entries: [e for e in entries if ".self_attn" not in e])


@fault(MODELOPT + "pull/1340", "the ignore list has layers.1*, a layer that is quantized")
def _ignore_pattern_too_wide(files: Files) -> None:
    files.declare(ignore=lambda entries: [*entries, "model.language_model.layers.1*"])


@fault(
    VLLM + "issues/40252",
    "in_proj_a and in_proj_b are on the ignore list neither by name nor as in_proj_ba",
)
def _fused_layer_not_ignored(files: Files) -> None:
    gone = ("in_proj_a", "in_proj_b", "in_proj_ba")
    files.declare(ignore=lambda entries: [e for e in entries if not e.endswith(gone)])


@fault(VLLM + "issues/57108", "one of two files of weights is not there")
def _shard_missing(files: Files) -> None:
    (files.folder / files.split()[1]).unlink()


@fault(MODELOPT + "issues/2011", "the last 4 KiB of a file of weights are missing")
def _shard_truncated(files: Files) -> None:
    last = files.split()[1]
    files.put(last, (files.folder / last).read_bytes()[:-_CUT_BYTES])


@fault(VLLM + "issues/57108", "the index lists scales that no file holds")
def _index_names_absent_scales(files: Files) -> None:
    files.drop(r".*layers\.0\.mlp\.experts\.\d+\.\w+\.input_scale")
    first, _ = files.split()
    index = files.read_index()
    absent = [
        f"model.language_model.layers.0.mlp.experts.{number}.{projection}_proj.input_scale"
        for number in range(16)
        for projection in ("gate", "up", "down")
    ]
    weight_map = index["weight_map"] | dict.fromkeys(absent, first)
    files.write_index(weight_map, index["metadata"]["total_size"])


@fault(VLLM + "issues/57108", "the index says of every tensor that it is in the other file")
def _index_wrong(files: Files) -> None:
    first, second = files.split()
    index = files.read_index()
    other = {first: second, second: first}
    weight_map = {name: other[file] for name, file in index["weight_map"].items()}
    files.write_index(weight_map, index["metadata"]["total_size"])


@fault(VLLM + "issues/46641", "the chat template is not that of the source")
def _chat_template_of_another_model(files: Files) -> None:
    files.put("chat_template.jinja", _PLAIN_TEMPLATE.encode())


@fault(VLLM + "issues/46641", "the tokenizer's letters have other ids than those of the source")
def _tokenizer_of_another_model(files: Files) -> None:
    """Let lower-case letters change their ids, as in another model's vocabulary."""
    values = json.loads((files.folder / "tokenizer.json").read_bytes())
    vocabulary = values["model"]["vocab"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    ids = [vocabulary[letter] for letter in letters]
    vocabulary |= dict(zip(letters, reversed(ids), strict=True))
    files.put("tokenizer.json", json.dumps(values).encode())


@fault(VLLM + "issues/46641", "the export left the tokenizer behind")
def _tokenizer_lost(files: Files) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (files.folder / name).unlink()


FAULTS = tuple(fault.declared)
