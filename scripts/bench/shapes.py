"""Shapes of random models: the target's, at any depth, smaller ones of its family, a dense one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CANARY = Path(__file__).resolve().parents[2] / "evals" / "canary" / "model"
_INTERVAL = 4
"""Every fourth layer has full attention, the others linear attention."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """What of a Qwen3.5-MoE configuration differs from the canary's."""

    layers: int
    text: Mapping[str, object]
    vision: Mapping[str, object]

    def config(self, layers: int | None = None) -> dict[str, Any]:
        """Return config.json; with other than its own number of decoder layers if one is given."""
        config: dict[str, Any] = json.loads((CANARY / "config.json").read_text(encoding="utf-8"))
        number = layers or self.layers
        kinds = [
            "full_attention" if index % _INTERVAL == _INTERVAL - 1 else "linear_attention"
            for index in range(number)
        ]
        text = {**config["text_config"], **self.text}
        text |= {"num_hidden_layers": number, "layer_types": kinds, "mtp_num_hidden_layers": 0}
        config["text_config"] = text
        own = {"out_hidden_size": text["hidden_size"]}
        config["vision_config"] = {**config["vision_config"], **self.vision, **own}
        return config


@dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """A model without experts, configured as its makers published it."""

    layers: int
    values: Mapping[str, object]

    def config(self, layers: int | None = None) -> dict[str, Any]:
        """Return config.json; with other than its own number of decoder layers if one is given."""
        return {**self.values, "num_hidden_layers": layers or self.layers}


DENSE = {
    "qwen3-1.7b": Dense(
        layers=28,
        values={
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "dtype": "bfloat16",
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "head_dim": 128,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "vocab_size": 151936,
            "max_position_embeddings": 40960,
            "rope_parameters": {"rope_theta": 1_000_000, "rope_type": "default"},
            "tie_word_embeddings": True,
        },
    ),
}
SHAPES = {
    "qwen3.6-35b-a3b": Shape(
        layers=40,
        text={
            "hidden_size": 2048,
            "head_dim": 256,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "linear_num_key_heads": 16,
            "linear_num_value_heads": 32,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "vocab_size": 248320,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "mrope_interleaved": True,
                "mrope_section": [11, 11, 10],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10_000_000,
                "rope_type": "default",
            },
        },
        vision={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "num_position_embeddings": 2304,
        },
    ),
    "3b": Shape(
        layers=28,
        text={
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "linear_num_key_heads": 8,
            "linear_num_value_heads": 16,
            "num_experts": 64,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "vocab_size": 32000,
        },
        vision={},
    ),
    "small": Shape(
        layers=4,
        text={
            "hidden_size": 512,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "num_experts": 32,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "vocab_size": 8000,
        },
        vision={},
    ),
    "tiny": Shape(layers=4, text={}, vision={}),
    # As many tensors as the 35B-A3B shape, of few numbers: what is left is Python's share.
    "names": Shape(
        layers=40,
        text={
            "hidden_size": 64,
            "num_experts": 256,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 64,
            "shared_expert_intermediate_size": 64,
        },
        vision={},
    ),
}
