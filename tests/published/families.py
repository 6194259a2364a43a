"""Which modules a family's checkpoints have, under their real names, cut to tiny widths.

From the published checkpoints' index files and the loaders of engines. What a family is not known
for is built like Llama, with what the declaration itself names: the beginning of the decoder's
names, the block of its experts, their projections.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]

WIDTH, WIDE, VOCABULARY = 128, 256, 320
EXPERTS = 4
NESTED = ("text_config", "llm_config", "language_config", "thinker_config")


class Part(NamedTuple):
    """One module: a linear layer that may be quantized, or what never is."""

    name: str
    shape: tuple[int, ...]
    is_linear: bool = True
    leaf: str = "weight"


class Names(NamedTuple):
    """How a checkpoint spells what all decoders have."""

    decoder: str
    """Before `layers.N`, with its dot."""
    head: str
    embedding: str
    norm: str
    experts: str
    """The block of a layer that holds router and experts."""
    projections: tuple[str, str, str]
    """Of an expert: gate, up, down."""


def decoder_of(config: Config) -> dict[str, Any]:
    """Return the part of a configuration that has the decoder's layers."""
    for key in NESTED:
        inner = config.get(key)
        if isinstance(inner, Mapping) and "num_hidden_layers" in {*inner, *config}:
            return {**config, **inner} if kind_of(inner) else {**config, **inner, **_type(config)}
    return dict(config)


def _type(config: Config) -> dict[str, Any]:
    return {"model_type": kind_of(config)}


def kind_of(config: Config) -> str:
    return str(config.get("model_type") or "")


_BEGINNINGS = {
    "deepseek_v4": "",
    "deepseek_ref": "",
    "gemma3": "model.language_model.",
    "gemma4": "model.language_model.",
    "glm4v_moe": "model.language_model.",
    "kimi_k25": "language_model.model.",
    "kimi_k3": "language_model.model.",
    "llama4": "language_model.model.",
    "minimax_m3_vl": "language_model.model.",
    "mistral3": "language_model.model.",
    "nemotron_h": "backbone.",
    "qwen3_5": "model.language_model.",
    "qwen3_5_moe": "model.language_model.",
    "qwen3_vl": "model.language_model.",
    "qwen3_vl_moe": "model.language_model.",
}
_EXPERT_BLOCKS = {
    "deepseek_v4": "ffn",
    "deepseek_ref": "ffn",
    "gemma4": "",
    "gemma4_text": "",
    "kimi_k3": "block_sparse_moe",
    "kimi_linear": "block_sparse_moe",
    "llama4": "feed_forward",
    "llama4_text": "feed_forward",
    "minimax_m2": "block_sparse_moe",
    "minimax_m3": "block_sparse_moe",
    "minimax_m3_vl": "block_sparse_moe",
    "mixtral": "block_sparse_moe",
    "nemotron_h": "mixer",
    "step3p5": "moe",
}
LETTERS = ("w1", "w3", "w2")
WORDS = ("gate_proj", "up_proj", "down_proj")
_LETTERED = {"mixtral", "minimax_m2", "minimax_m3", "minimax_m3_vl", "kimi_k3", "kimi_linear"}
_LETTERED |= {"deepseek_v4", "deepseek_ref"}


def names_of(config: Config, named: Iterable[str]) -> Names:
    """Return a family's spelling; what the declaration names decides over what is known."""
    listed = [name for name in named if not re.match(r"(model\.)?(mtp|visual|vision|audio)", name)]
    kind = kind_of(config)
    seen = Counter(m[1] for n in listed if (m := re.match(r"([\w.]*?)layers\.\d+", n)))
    known = _BEGINNINGS.get(kind, "model.")
    decoder = seen.most_common(1)[0][0] if seen else known
    block = next(
        (m[1] for n in listed if (m := re.search(r"layers\.\d+\.(\w+)\.experts", n))), None
    )
    if block is None:
        block = _EXPERT_BLOCKS.get(kind, "mlp")
    lettered = kind in _LETTERED or any(re.search(r"experts\.\d+\.w1$", name) for name in listed)
    short = "layers" if kind in {"deepseek_v4", "deepseek_ref"} else ""
    heads = [n for n in listed if n.rpartition(".")[2] in {"lm_head", "head"}]
    nested = decoder.removesuffix("model.") if decoder.startswith("language_model.") else ""
    return Names(
        decoder=decoder,
        head="head" if short else f"{nested}lm_head" if nested or not heads else heads[0],
        embedding={"nemotron_h": "backbone.embeddings"}.get(kind, f"{decoder}embed_tokens")
        if not short
        else "embed",
        norm=f"{decoder}norm_f" if kind == "nemotron_h" else f"{decoder}norm",
        experts=block,
        projections=LETTERS if lettered else WORDS,
    )


def num_layers(inner: Config) -> int:
    for key in ("layers_block_type", "hybrid_override_pattern", "layer_types"):
        if inner.get(key):
            return len(inner[key])
    return int(inner["num_hidden_layers"])


def mixer_of(inner: Config, index: int) -> str:
    """Return what a layer does with its neighbours: attention, mamba, linear attention, or moe."""
    if pattern := inner.get("hybrid_override_pattern"):
        return {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}[pattern[index]]
    if kinds := inner.get("layers_block_type"):
        return str(kinds[index])
    if pattern := inner.get("hybrid_layer_pattern"):
        return "sliding_attention" if pattern[index] else "attention"
    linear = inner.get("linear_attn_config")
    if isinstance(linear, Mapping) and linear.get("kda_layers"):
        return "kda" if index + 1 in linear["kda_layers"] else "attention"
    kinds = inner.get("layer_types")
    if kinds:
        return str(kinds[index])
    every = inner.get("full_attention_interval")
    return "linear_attention" if every and (index + 1) % every else "attention"


def has_experts(inner: Config, index: int) -> bool:
    """Return whether a layer routes its tokens to experts."""
    if not num_experts(inner):
        return False
    if kinds := inner.get("mlp_layer_types"):
        return bool(kinds[index] == "sparse")
    frequency = inner.get("moe_layer_freq")
    if isinstance(frequency, list):
        return bool(frequency[index])
    if index in (inner.get("mlp_only_layers") or ()):
        return False
    if (step := inner.get("interleave_moe_layer_step")) and (index + 1) % step:
        return False
    return index >= (inner.get("first_k_dense_replace") or 0)


def num_experts(inner: Config) -> int:
    keys = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return next((inner[key] for key in keys if inner.get(key)), 0)
