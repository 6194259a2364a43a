"""What the rules of `shrink.py` get wrong of single model types, and why.

By model type, settings in place of those that the rules give; ... takes a setting out.
"""

from typing import Any

Settings = dict[str, Any]

_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def _sections(*columns: int, **more: Any) -> Settings:  # noqa: ANN401 -- settings
    """Rotated columns for time, height and width, which classes have for heads of 128 alone."""
    return {"rope_parameters": _ROPE | {"mrope_section": list(columns)} | more}


_QWEN2_VL = _sections(8, 12, 12)
_QWEN3_VL = _sections(12, 10, 10, mrope_interleaved=True)
_QWEN3_5 = _sections(4, 2, 2, mrope_interleaved=True, partial_rotary_factor=0.25)
_KINDS = ["sliding_attention", "full_attention"]
_ROUTED = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
}
_QWEN4 = _QWEN3_5 | {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 64,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}

CORRECTIONS: dict[str, Settings] = {
    "bamba": {"attn_layer_indices": [1], "num_hidden_layers": 3},
    "chameleon": {"vocabulary_map": {"<image>": 261}},
    "cohere2_vision": {"alignment_intermediate_size": 512},
    # A kind of layer without an entry of its own is not rotated.
    "cohere_compass_text": {
        "rope_parameters": {kind: _sections(12, 10, 10)["rope_parameters"] for kind in _KINDS}
    },
    "cohere_compass": {
        "text_config": {
            "rope_parameters": {kind: _sections(12, 10, 10)["rope_parameters"] for kind in _KINDS}
        }
    },
    # The class leaves these open, which its model cannot.
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"moe_num_experts": 8, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "first_k_dense_replace": 1},
    "dots1": _ROUTED | {"first_k_dense_replace": 1, "layer_types": ["full_attention"] * 2},
    "ernie4_5_vl_moe": {"text_config": _sections(12, 12, 8) | {"moe_intermediate_size": [192, 64]}},
    "hunyuan_vl": {"text_config": _sections(8, 8, 8, 8)},
    "deepseek_v32": {"mlp_layer_types": ["dense", "sparse", "sparse"]},
    "gemma3n_text": {"intermediate_size": 384},
    "glm4v_moe": {"text_config": _sections(4, 6, 6, partial_rotary_factor=0.5)},
    "glm4v": {"text_config": _sections(4, 6, 6, partial_rotary_factor=0.5)},
    "lfm2_moe": {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    },
    "mamba2": {"num_heads": 8, "head_dim": 64},
    "mistral4": {"head_dim": 128, "num_key_value_heads": 4},
    "nemotron_h_omni": {"vision_config": {"video_temporal_patch_size": 2}},
    "nemotron_h": {
        "layers_block_type": ["linear_attention", "moe", "full_attention", "moe", "mlp"],
    },
    "paddleocr_vl": {"text_config": _QWEN2_VL},
    "qwen2_5_omni_thinker": {"text_config": _QWEN2_VL},
    "qwen2_5_vl": {"text_config": _QWEN2_VL},
    "qwen2_vl": {"text_config": _QWEN2_VL},
    "qwen3_5": {"text_config": _QWEN3_5},
    "qwen3_5_moe": {"text_config": _QWEN3_5},
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5_moe_text": _QWEN3_5,
    "qwen3_vl": {"text_config": _QWEN3_VL},
    "qwen3_vl_moe": {"text_config": _QWEN3_VL},
    "qwen3_omni_moe": {
        "thinker_config": {"text_config": _QWEN3_VL},
        "talker_config": {
            "text_config": {"shared_expert_intermediate_size": 192},
            "spatial_merge_size": 2,
        },
        "code2wav_config": {"decoder_dim": 64, "codebook_size": 32}
        | {"upsample_rates": [2, 2], "upsampling_ratios": [2, 2]},
    },
    "qwen3_omni_moe_thinker": {"text_config": _QWEN3_VL},
    "qwen4_exp_text": _QWEN4,
    "qwen4_exp": {"text_config": _QWEN4},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "step3p7": {"text_config": {"sliding_window": 128}},
}
