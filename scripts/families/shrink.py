"""Make the configuration of any model type small, by what its keys mean.

Nothing is said of single model types here: `corrections.py` has those that need it.
"""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from transformers import CONFIG_MAPPING, PreTrainedConfig

from scripts.families.sizes import INDICES, LAYERS, TEXT, TOKENS, TOWER

Settings = dict[str, Any]

_MIN_LAYERS = 2
_TOWER_WORDS = ("vision", "audio", "encoder", "codec", "vq", "vit", "sam", "projector", "qformer")
_NOT_BY_LAYER = {"moe_layers", "full_attn_idxs", "hybrid_layer_ids", "tokens_per_second"}


def small_settings(model_type: str, corrections: Mapping[str, Any]) -> Settings:
    """Return the keyword arguments that make a small configuration.

    Arguments:
        model_type: a key of transformers' mapping of configurations.
        corrections: by key, what is to be instead; None of a nested configuration is kept whole.
    """
    default = CONFIG_MAPPING[model_type]()
    settings = _small(default, is_tower=False, ids=itertools.count(270))
    merge(settings, corrections)
    return settings


def merge(into: Settings, more: Mapping[str, Any]) -> None:
    """Put `more` into nested settings; ... takes a key out."""
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            merge(into[key], value)
        elif value is ...:
            into.pop(key, None)
        else:
            into[key] = value


def _small(default: PreTrainedConfig, *, is_tower: bool, ids: Iterator[int]) -> Settings:
    """Return the settings of one configuration and of those in it."""
    nested = {key for key in default.sub_configs if _is_config(getattr(default, key, None))}
    keys = _settings_of(default, nested)
    sizes = TOWER if is_tower else TEXT
    settings = {key: _small_value(key, value, sizes, ids) for key, value in keys.items()}
    settings = {key: value for key, value in settings.items() if value is not ...}
    settings |= _layers(keys, is_tower=is_tower) | _heads(keys, is_tower=is_tower)
    if "rope_parameters" in settings:
        _shrink_rope(settings["rope_parameters"], settings.get("head_dim", 64))
    for key in sorted(nested):
        config = getattr(default, key)
        inside = is_tower or any(word in key for word in _TOWER_WORDS)
        settings[key] = _small(config, is_tower=inside, ids=ids)
        if config.model_type:
            settings[key]["model_type"] = config.model_type
    return settings


def _small_value(key: str, value: object, sizes: Mapping[str, int], ids: Iterator[int]) -> Any:  # noqa: ANN401 -- a setting
    """Return what a setting becomes, ... where it stays as the class has it."""
    if key in TOKENS or key.endswith(("_token_id", "_token_index", "_token_ids")):
        return _token(key, value, ids)
    if key in sizes and _counts(value):
        return min(sizes[key], value) if sizes[key] < _SMALL else sizes[key]
    if key in INDICES and isinstance(value, list):
        return INDICES[key] if value else []
    if key == "rope_parameters" and isinstance(value, Mapping):
        return dict(value)
    return ...


def _heads(keys: Settings, *, is_tower: bool) -> Settings:
    """Say what a configuration leaves open: some models read the setting and find None."""
    if is_tower:
        return {}
    found: Settings = {}
    if "head_dim" in keys and keys["head_dim"] is None:
        found["head_dim"] = TEXT["head_dim"]
    if "num_key_value_heads" in keys:
        # Latent attention has as many heads of keys as of queries.
        is_latent = bool(keys.get("kv_lora_rank"))
        found["num_key_value_heads"] = TEXT[
            "num_attention_heads" if is_latent else "num_key_value_heads"
        ]
    return found


_SMALL = 8
"""Counts below are upper bounds: two groups at most, not two where there was one."""


def _is_config(value: object) -> bool:
    return isinstance(value, PreTrainedConfig)


def _settings_of(default: PreTrainedConfig, nested: set[str]) -> Settings:
    """Return the settings that a constructor takes, renamed as the class has them."""
    renamed = dict(default.attribute_map or {})
    held = {key: value for key, value in default.to_dict().items() if key not in nested}
    for key in renamed:
        held.pop(key, None)
    fixed = {"model_type", "transformers_version", "architectures", "id2label", "label2id"}
    return {key: value for key, value in held.items() if key not in fixed}


def _counts(value: object) -> TypeGuard[int]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _token(key: str, value: object, ids: Iterator[int]) -> Any:  # noqa: ANN401 -- an id, ids or none
    if key in TOKENS:
        return TOKENS[key] if key == "eos_token_id" or value is not None else value
    if isinstance(value, list | tuple):
        return [next(ids) for _ in value]
    return next(ids) if isinstance(value, int) else value


def _layers(keys: Settings, *, is_tower: bool) -> Settings:
    """Keep one layer of each kind that the default configuration tells apart, in their order."""
    counted = [key for key in LAYERS if isinstance(keys.get(key), int)]
    if is_tower:
        return dict.fromkeys(counted, 1)
    count = keys[counted[0]] if counted else _length_of_types(keys)
    lists = {
        key: list(value)
        for key, value in keys.items()
        if isinstance(value, list | tuple) and count and len(value) == count
        if key not in _NOT_BY_LAYER
    }
    kinds = [repr([lists[key][index] for key in sorted(lists)]) for index in range(count)]
    chosen = sorted({kind: index for index, kind in reversed([*enumerate(kinds)])}.values())
    more = (index for index in range(count) if index not in chosen)
    needed = _MIN_LAYERS + bool(keys.get("first_k_dense_replace") or keys.get("num_dense_layers"))
    needed = max(needed, 4 * _has_period(keys))
    chosen = sorted([*chosen, *itertools.islice(more, max(needed - len(chosen), 0))])
    settings: Settings = dict.fromkeys(counted, len(chosen))
    for key, values in lists.items():
        kept = [values[index] for index in chosen]
        settings[key] = [min(4, one) if "heads" in key else one for one in kept]
    return settings


def _length_of_types(keys: Settings) -> int:
    """Return the number of layers where nothing but a list of kinds says it."""
    for key in ("layers_block_type", "layer_types", "block_types"):
        if isinstance(keys.get(key), list | tuple):
            return len(keys[key])
    return 0


def _has_period(keys: Settings) -> bool:
    periods = ("attn_layer_period", "moe_layer_start_index", "global_attn_every_n_layers")
    return any(keys.get(key) for key in periods)


def _shrink_rope(rope: Settings, head_dim: int) -> None:
    """Divide the rotated columns among time, height and width as before."""
    for one in [rope, *(value for value in rope.values() if isinstance(value, dict))]:
        if "original_max_position_embeddings" in one:
            one["original_max_position_embeddings"] = TEXT["max_position_embeddings"] // 2
            one["factor"] = 2.0
        if section := one.get("mrope_section"):
            columns = int(head_dim * one.get("partial_rotary_factor", 1.0)) // 2
            rest = [columns * part // (4 * max(1, sum(section) // 4)) for part in section[1:]]
            with contextlib.suppress(TypeError):
                one["mrope_section"] = [columns - sum(rest), *rest]
