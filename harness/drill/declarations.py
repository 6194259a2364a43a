"""Faults of what is said beside the weights: configurations, ignore lists, sidecars, shards."""

import json

from harness.drill.fault import FileFault
from harness.drill.tampering import CONFIG, HF_CONFIG, Files

_VLLM = "https://github.com/vllm-project/vllm/"
_MODELOPT = "https://github.com/NVIDIA/Model-Optimizer/"
_CUT_BYTES = 4096
_PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
)


def _declare_fp8(files: Files) -> None:
    files.declare(algo="FP8")


def _declare_inputs(files: Files) -> None:
    files.declare(algo="NVFP4")


def _contradict(files: Files) -> None:
    files.json(HF_CONFIG)["quantization"]["quant_algo"] = "FP8"


def _declare_null(files: Files) -> None:
    files.declare(algo=None)


def _declare_nothing(files: Files) -> None:
    del files.json(CONFIG)["quantization_config"]
    (files.folder / HF_CONFIG).unlink()


def _lm_head_not_ignored(files: Files) -> None:
    files.declare(ignore=lambda entries: [e for e in entries if e != "lm_head"])


def _routers_not_ignored(files: Files) -> None:
    files.declare(ignore=lambda entries: [e for e in entries if not e.endswith(".mlp.gate")])


def _ignore_too_much(files: Files) -> None:
    files.declare(ignore=lambda entries: [*entries, "model.language_model.layers.1*"])


def _ignore_no_gates(files: Files) -> None:
    gone = ("in_proj_a", "in_proj_b", "in_proj_ba")
    files.declare(ignore=lambda entries: [e for e in entries if not e.endswith(gone)])


def _lose_shard(files: Files) -> None:
    (files.folder / files.split()[1]).unlink()


def _cut_shard(files: Files) -> None:
    last = files.split()[1]
    files.put(last, (files.folder / last).read_bytes()[:-_CUT_BYTES])


def _index_names_absent(files: Files) -> None:
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


def _index_wrong(files: Files) -> None:
    first, second = files.split()
    index = files.read_index()
    other = {first: second, second: first}
    weight_map = {name: other[file] for name, file in index["weight_map"].items()}
    files.write_index(weight_map, index["metadata"]["total_size"])


def _other_template(files: Files) -> None:
    files.put("chat_template.jinja", _PLAIN_TEMPLATE.encode())


def _other_tokenizer(files: Files) -> None:
    """Let lower-case letters change their ids, as in another model's vocabulary."""
    values = json.loads((files.folder / "tokenizer.json").read_bytes())
    vocabulary = values["model"]["vocab"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    ids = [vocabulary[letter] for letter in letters]
    vocabulary |= dict(zip(letters, reversed(ids), strict=True))
    files.put("tokenizer.json", json.dumps(values).encode())


def _lose_tokenizer(files: Files) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (files.folder / name).unlink()


FAULTS = (
    FileFault(
        name="algorithm-not-that-of-the-tensors",
        incident=_VLLM + "issues/47215",
        what="both configurations say FP8, the tensors are NVFP4",
        spoil=_declare_fp8,
    ),
    FileFault(
        name="weight-only-declared-with-inputs",
        incident=_VLLM + "issues/54189",
        what="a weight-only checkpoint declares NVFP4 inputs, of which it has no scale",
        spoil=_declare_inputs,
        format="w4a16_nvfp4",
    ),
    FileFault(
        name="configurations-contradict",
        incident=_VLLM + "issues/47215",
        what="hf_quant_config.json says FP8, config.json says NVFP4",
        spoil=_contradict,
    ),
    FileFault(
        name="algorithm-null",
        incident=_MODELOPT + "pull/2202",
        what="quant_algo is null",
        spoil=_declare_null,
    ),
    FileFault(
        name="quantization-not-declared",
        incident=_MODELOPT + "pull/1323",
        what="no configuration says that the checkpoint is quantized",
        spoil=_declare_nothing,
    ),
    FileFault(
        name="lm-head-not-ignored",
        incident=_VLLM + "issues/52501",
        what="the unquantized lm_head is not on the ignore list",
        spoil=_lm_head_not_ignored,
    ),
    FileFault(
        name="routers-not-ignored",
        incident=_MODELOPT + "pull/1858",
        what="the unquantized routers are not on the ignore list",
        spoil=_routers_not_ignored,
    ),
    FileFault(
        name="ignore-pattern-too-wide",
        incident=_MODELOPT + "pull/1340",
        what="the ignore list has layers.1*, a layer that is quantized",
        spoil=_ignore_too_much,
    ),
    FileFault(
        name="fused-layer-not-ignored",
        incident=_VLLM + "issues/40252",
        what="in_proj_a and in_proj_b are on the ignore list neither by name nor as in_proj_ba",
        spoil=_ignore_no_gates,
    ),
    FileFault(
        name="shard-missing",
        incident=_VLLM + "issues/57108",
        what="one of two files of weights is not there",
        spoil=_lose_shard,
    ),
    FileFault(
        name="shard-truncated",
        incident=_MODELOPT + "issues/2011",
        what="the last 4 KiB of a file of weights are missing",
        spoil=_cut_shard,
    ),
    FileFault(
        name="index-names-absent-scales",
        incident=_VLLM + "issues/57108",
        what="the index lists scales that no file holds",
        spoil=_index_names_absent,
    ),
    FileFault(
        name="index-wrong",
        incident=_VLLM + "issues/57108",
        what="the index says of every tensor that it is in the other file",
        spoil=_index_wrong,
    ),
    FileFault(
        name="chat-template-of-another-model",
        incident=_VLLM + "issues/46641",
        what="the chat template is not that of the source",
        spoil=_other_template,
    ),
    FileFault(
        name="tokenizer-of-another-model",
        incident=_VLLM + "issues/46641",
        what="the tokenizer's letters have other ids than those of the source",
        spoil=_other_tokenizer,
    ),
    FileFault(
        name="tokenizer-lost",
        incident=_VLLM + "issues/46641",
        what="the export left the tokenizer behind",
        spoil=_lose_tokenizer,
    ),
)
