"""Which modules a family's checkpoints have, under their real names, cut to tiny widths.

From the published checkpoints' index files and the loaders of engines. What a family is not known
for is built like Llama, with what the declaration itself names: the beginning of the decoder's
names, the block of its experts, their projections.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Config = Mapping[str, Any]

WIDTH, WIDE, VOCABULARY = 128, 256, 320
EXPERTS = 4
LAYER_COUNTS = ("num_hidden_layers", "num_layers", "n_layer")
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
    tower: str
    """The part that sees."""


def decoder_of(config: Config) -> dict[str, Any]:
    """Return the part of a configuration that has the decoder's layers."""
    key = nested_key(config)
    if key is None:
        return dict(config)
    outer = {name: value for name, value in config.items() if name != key}
    kind = kind_of(config[key]) or kind_of(config)
    return decoder_of({**outer, **config[key], "model_type": kind})


def nested_key(config: Config) -> str | None:
    """Return where the decoder's settings lie, if not beside the others."""
    return next((key for key in NESTED if isinstance(config.get(key), Mapping)), None)


def kind_of(config: Config) -> str:
    return str(config.get("model_type") or "")


LETTERS = ("w1", "w3", "w2")
WORDS = ("gate_proj", "up_proj", "down_proj")


class Family(NamedTuple):
    """Where a family's names differ from those of Llama."""

    decoder: str = "model."
    experts: str = "mlp"
    projections: tuple[str, str, str] = WORDS
    ends: tuple[str, str, str] | None = None
    """Embedding, last norm and output head."""


_TOWERED = Family("model.language_model.")
_KIMI = Family("language_model.model.")
_MINIMAX = Family("model.", "block_sparse_moe", LETTERS)
_DEEPSEEK_V4 = Family("", "ffn", LETTERS, ("embed", "norm", "head"))
_FAMILIES = {
    "deepseek_ref": _DEEPSEEK_V4,
    "deepseek_v4": _DEEPSEEK_V4,
    "gemma3": _TOWERED,
    "gemma4": _TOWERED._replace(experts=""),
    "glm4v_moe": _TOWERED,
    "kimi_k25": _KIMI,
    "kimi_k3": Family("language_model.model.", "block_sparse_moe", LETTERS),
    "llama4": Family("language_model.model.", "feed_forward"),
    "minimax_m2": _MINIMAX,
    "minimax_m3": _MINIMAX,
    "minimax_m3_vl": _MINIMAX._replace(decoder="language_model.model."),
    "mistral3": _KIMI,
    "mixtral": _MINIMAX,
    "nemotron_h": Family(
        "backbone.", "mixer", ends=("backbone.embeddings", "backbone.norm_f", "lm_head")
    ),
    "qwen3_5": _TOWERED,
    "qwen3_5_moe": _TOWERED,
    "qwen3_vl": _TOWERED,
    "qwen3_vl_moe": _TOWERED,
    "step3p5": Family(experts="moe"),
}


def names_of(config: Config, named: Sequence[str]) -> Names:
    """Return a family's spelling; what the declaration names decides over what is known."""
    listed = [name for name in named if not re.match(r"(model\.)?(mtp|visual|vision|audio)", name)]
    family = _FAMILIES.get(kind_of(config), Family())
    decoder = _most(r"([\w.]*?)layers\.\d+", listed, family.decoder)
    heads = [name for name in listed if name.rpartition(".")[2] == "lm_head"]
    head = next(iter(heads), "lm_head")
    if decoder.endswith(".model."):  # where a list has no more than `lm_head`, the head has more
        head = f"{decoder.removesuffix('model.')}lm_head"
    ends = family.ends or (f"{decoder}embed_tokens", f"{decoder}norm", head)
    is_lettered = any(re.search(r"experts\.\d+\.w1$", name) for name in listed)
    return Names(
        decoder=decoder,
        embedding=ends[0],
        norm=ends[1],
        head=ends[2],
        experts=_most(r".*layers\.\d+\.(\w+)\.experts", listed, family.experts),
        projections=LETTERS if is_lettered else family.projections,
        tower=_most(r"((?:\w+\.)?vis\w+)", named, "model.visual"),
    )


def _most(pattern: str, names: Iterable[str], usual: str) -> str:
    """Return what most names have in the place of a pattern's group."""
    seen = Counter(found[1] for name in names if (found := re.match(pattern, name)))
    return seen.most_common(1)[0][0] if seen else usual


def num_layers(inner: Config) -> int:
    for key in ("layers_block_type", "hybrid_override_pattern", "layer_types"):
        if inner.get(key):
            return len(inner[key])
    return int(next((inner[key] for key in LAYER_COUNTS if inner.get(key)), 2))


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
