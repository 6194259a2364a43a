"""Write the canary's Hugging Face folder, in the layout the target family has on the Hub.

The tensors are written straight from the state dict: `save_pretrained` of transformers 5 would
split the fused experts into one tensor for each expert, and the Hub's folders hold them fused. The
MTP layer is random (nothing here trains it): it is there so that tools which must carry it over can
be seen to do so. The tokenizer has one token for each byte and no merges, so every tokenizer class
of the family gives the same ids whatever its pre-tokenizer.

Shapes: E experts, O output features, I input features.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from scripts.canary.language import FIRST_SPECIAL_ID, SPECIAL_TOKENS

HIDDEN = 256
EXPERT_WIDTH = 128
NUM_EXPERTS = 16
EXPERTS_PER_TOKEN = 4
HEAD_DIM = 64
NUM_HEADS, NUM_KV_HEADS = 4, 2
VOCAB_ROWS = 320
MTP_INIT_STD = 0.02
TEMPLATE = """\
{%- macro render(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\\n' + render(message.content) + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""


def token_id(token: str) -> int:
    """Return the id of a special token."""
    return FIRST_SPECIAL_ID + SPECIAL_TOKENS.index(token)


def config_json() -> dict[str, Any]:
    """Return config.json as the Hub's folders of this family write it."""
    text = {
        "model_type": "qwen3_5_moe_text",
        "dtype": "bfloat16",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "bos_token_id": None,
        "eos_token_id": token_id("<|endoftext|>"),
        "pad_token_id": token_id("<|endoftext|>"),
        "full_attention_interval": 4,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "layer_types": [*["linear_attention"] * 3, "full_attention"],
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 64,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 64,
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 1024,
        "moe_intermediate_size": EXPERT_WIDTH,
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "num_attention_heads": NUM_HEADS,
        "num_experts": NUM_EXPERTS,
        "num_experts_per_tok": EXPERTS_PER_TOKEN,
        "num_hidden_layers": 4,
        "num_key_value_heads": NUM_KV_HEADS,
        "output_router_logits": False,
        "partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [4, 2, 2],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000,
            "rope_type": "default",
        },
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": EXPERT_WIDTH,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCAB_ROWS,
    }
    vision = {
        "model_type": "qwen3_5_moe",
        "deepstack_visual_indexes": [],
        "depth": 1,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 128,
        "in_channels": 3,
        "initializer_range": 0.02,
        "intermediate_size": 256,
        "num_heads": 2,
        "num_position_embeddings": 256,
        "out_hidden_size": HIDDEN,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    return {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "dtype": "bfloat16",
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": False,
    }


def mtp_shapes() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor of the MTP layer."""
    q_rows = 2 * NUM_HEADS * HEAD_DIM  # query and output gate, interleaved
    kv_rows = NUM_KV_HEADS * HEAD_DIM
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
        "self_attn.q_proj.weight": (q_rows, HIDDEN),
        "self_attn.k_proj.weight": (kv_rows, HIDDEN),
        "self_attn.v_proj.weight": (kv_rows, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, NUM_HEADS * HEAD_DIM),
        "self_attn.q_norm.weight": (HEAD_DIM,),
        "self_attn.k_norm.weight": (HEAD_DIM,),
        "mlp.gate.weight": (NUM_EXPERTS, HIDDEN),
        "mlp.experts.gate_up_proj": (NUM_EXPERTS, 2 * EXPERT_WIDTH, HIDDEN),
        "mlp.experts.down_proj": (NUM_EXPERTS, HIDDEN, EXPERT_WIDTH),
        "mlp.shared_expert.gate_proj.weight": (EXPERT_WIDTH, HIDDEN),
        "mlp.shared_expert.up_proj.weight": (EXPERT_WIDTH, HIDDEN),
        "mlp.shared_expert.down_proj.weight": (HIDDEN, EXPERT_WIDTH),
        "mlp.shared_expert_gate.weight": (1, HIDDEN),
    }
    outside = {
        "mtp.fc.weight": (HIDDEN, 2 * HIDDEN),
        "mtp.norm.weight": (HIDDEN,),
        "mtp.pre_fc_norm_embedding.weight": (HIDDEN,),
        "mtp.pre_fc_norm_hidden.weight": (HIDDEN,),
    }
    return outside | {f"mtp.layers.0.{name}": shape for name, shape in layer.items()}


def mtp_tensors(seed: int) -> dict[str, Tensor]:
    """Draw the MTP layer; norms are zero, as the family stores them centered on one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in mtp_shapes().items():
        std = 0.0 if len(shape) == 1 else MTP_INIT_STD
        tensors[name] = (torch.randn(shape, generator=generator) * std).bfloat16()
    return tensors


def _byte_characters() -> list[str]:
    """Return the printable character that byte-level tokenizers write for each byte.

    Source: GPT-2's bytes_to_unicode, which every byte-level BPE vocabulary follows.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_tokenizer(out: Path) -> None:
    """Write the byte tokenizer, its settings and the chat template."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "image_token": "<|image_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "errors": "replace",
        "added_tokens_decoder": {
            str(token_id(token)): {
                "content": token,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for token in SPECIAL_TOKENS
        },
    }
    _write_json(out / "tokenizer_config.json", settings)
    (out / "chat_template.jinja").write_text(TEMPLATE)


def write_sidecars(out: Path) -> None:
    """Write the generation settings and the two processor files that servers insist on."""
    _write_json(
        out / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [token_id("<|im_end|>"), token_id("<|endoftext|>")],
            "pad_token_id": token_id("<|endoftext|>"),
        },
    )
    pixels = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen3VLProcessor",
    }
    image = {
        "size": {"longest_edge": 65536, "shortest_edge": 4096},
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    video = {
        "size": {"longest_edge": 131072, "shortest_edge": 4096},
        "video_processor_type": "Qwen3VLVideoProcessor",
    }
    _write_json(out / "preprocessor_config.json", image | pixels)
    _write_json(out / "video_preprocessor_config.json", video | pixels)


def write_folder(out: Path, weights: Mapping[str, Tensor], seed: int) -> None:
    """Write the whole folder: trained weights as bfloat16, the MTP layer, and every sidecar."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = mtp_tensors(seed)
    for name, tensor in weights.items():
        tensors[name] = tensor.detach().cpu().bfloat16().contiguous()
    file = out / "model.safetensors"
    save_file(dict(sorted(tensors.items())), file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it readable by its owner only
    _write_json(out / "config.json", config_json())
    write_tokenizer(out)
    write_sidecars(out)
