"""Cut a published configuration down to what says how its checkpoint looks.

One layer of each kind stays, under new numbers, and four experts; lists of modules keep what is
about them. What is left are facts: which layers there are and what is declared of them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.published import declared
from tests.published.families import (
    EXPERTS,
    LAYER_COUNTS,
    decoder_of,
    names_of,
    nested_key,
    num_layers,
)

Config = Mapping[str, Any]

MOST_LAYERS = 6
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_BY_LAYER = (
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "moe_layer_freq",
    "hybrid_layer_pattern",
    "compress_ratios",
)
_KEPT = (
    "architectures",
    "model_type",
    "tie_word_embeddings",
    *LAYER_COUNTS,
    "mtp_layers_block_type",
    "first_k_dense_replace",
    "n_shared_experts",
    "num_shared_experts",
    "shared_expert_intermediate_size",
    "interleave_moe_layer_step",
    "q_lora_rank",
    "kv_lora_rank",
    "index_n_heads",
    "num_nextn_predict_layers",
    "mtp_num_hidden_layers",
    "moe_latent_size",
    "attention_k_eq_v",
    "add_swa_attention_sink_bias",
    "expert_dtype",
    "topk_method",
    "scoring_func",
    *_COUNTS,
)


def cut(config: Config, sidecar: Config) -> dict[str, Any]:
    """Return `config` and `sidecar`, cut."""
    found = declared.read(config, sidecar)
    if found is None:
        return {"config": {}, "sidecar": {}}
    inner = decoder_of(config)
    decoder = names_of(config, found.names).decoder
    layers = _kept_layers(inner, decoder, found.names)
    renamed = _Renamed(decoder, {old: new for new, old in enumerate(layers)}, num_layers(inner))
    small = _settings(config, layers)
    if config.get("vision_config"):
        small["vision_config"] = {"model_type": config["vision_config"].get("model_type")}
    for place, into in (
        (config, small),
        (config.get("text_config") or {}, small.get("text_config")),
    ):
        for key in ("quantization_config", "compression_config"):
            if place.get(key) and into is not None:
                into[key] = renamed.section(place[key])
    beside = {
        key: renamed.section(value) for key, value in sidecar.items() if key == "quantization"
    }
    producer = {key: value for key, value in sidecar.items() if key == "producer"}
    return {"config": small, "sidecar": {**producer, **beside}}


def _kept_layers(inner: Config, decoder: str, named: Iterable[str]) -> list[int]:
    """Return the first layer of each kind, told by the lists of the configuration and of names."""
    about: dict[int, set[str]] = {}
    start = re.compile(rf"{re.escape(decoder)}layers\.(\d+)(.*)")
    for name in named:
        if found := start.match(name):
            about.setdefault(int(found[1]), set()).add(re.sub(r"\d+", "N", found[2]))
    kinds: dict[object, int] = {}
    for index in range(num_layers(inner)):
        lists = [inner[key][index] for key in _BY_LAYER if _reaches(inner.get(key), index)]
        kda = (inner.get("linear_attn_config") or {}).get("kda_layers") or ()
        pattern = (inner.get("hybrid_override_pattern") or " " * (index + 1))[index]
        is_dense = index < (inner.get("first_k_dense_replace") or 0)
        is_routed = (index + 1) % (inner.get("interleave_moe_layer_step") or 1) == 0
        by_count = (is_dense, is_routed, index + 1 in kda)
        kind = (str(lists), pattern, by_count, frozenset(about.get(index, ())))
        kinds.setdefault(kind, index)
    first = sorted(kinds.values())[:MOST_LAYERS]
    return first if len(first) > 1 or num_layers(inner) == 1 else [*first, first[0] + 1]


def _reaches(values: object, index: int) -> bool:
    return isinstance(values, list) and index < len(values)


def _settings(config: Config, layers: list[int]) -> dict[str, Any]:
    small = {key: config[key] for key in _KEPT if config.get(key) is not None}
    for key in _BY_LAYER:
        values = config.get(key)
        if isinstance(values, list):
            small[key] = [values[index] for index in layers if index < len(values)]
            # DeepSeek V4's list has one more for its draft head.
            small[key] += (
                values[-1:] if len(values) > max(layers) and key == "compress_ratios" else []
            )
        elif values is not None:
            small[key] = values
    if pattern := config.get("hybrid_override_pattern"):
        small["hybrid_override_pattern"] = "".join(pattern[index] for index in layers)
    if linear := config.get("linear_attn_config"):
        kept = [index + 1 in linear.get("kda_layers", ()) for index in layers]
        numbers = [number for number, is_linear in enumerate(kept, 1) if is_linear]
        small["linear_attn_config"] = {"kda_layers": numbers}
    if nested := nested_key(config):
        small[nested] = _settings(config[nested], layers)
    small |= {key: len(layers) for key in LAYER_COUNTS if config.get(key)}
    if dense := config.get("first_k_dense_replace"):
        small["first_k_dense_replace"] = sum(index < dense for index in layers)
    return small | {key: EXPERTS for key in _COUNTS if config.get(key)}


class _Renamed:
    """Names of modules after the cut."""

    def __init__(self, decoder: str, layers: Mapping[int, int], total: int) -> None:
        self._start = re.compile(rf"({re.escape(decoder)}layers\.)(\d+)(?=\.|\*|$)")
        # DeepSeek's draft head is the layer after the last.
        self._layers = dict(layers) | {total + more: len(layers) + more for more in range(3)}

    def section(self, section: Config) -> dict[str, Any]:
        """Return a declaration with names of the kept layers."""
        small = {key: value for key, value in section.items() if key != "config_groups"}
        for key in (*declared.LISTS, "quantized_layers"):
            if isinstance(section.get(key), list):
                small[key] = [new for name in section[key] if (new := self._name(name))]
            elif isinstance(section.get(key), Mapping):
                named = section[key].items()
                small[key] = {new: value for name, value in named if (new := self._name(name))}
        if isinstance(section.get("quantization"), Mapping):
            small["quantization"] = self.section(section["quantization"])
        if groups := section.get("config_groups"):
            small["config_groups"] = {name: self._group(group) for name, group in groups.items()}
        return small

    def _group(self, group: Config) -> dict[str, Any]:
        small = dict(group)
        if group.get("targets"):
            small["targets"] = [new for name in group["targets"] if (new := self._name(name))]
        return small

    def _name(self, name: str) -> str | None:
        found = self._start.match(name)
        if found:
            new = self._layers.get(int(found[2]))
            if new is None:
                return None
            name = f"{found[1]}{new}{name[found.end() :]}"
        expert = re.search(r"\.experts\.(\d+)\.", name)
        return None if expert and int(expert[1]) >= EXPERTS else name
