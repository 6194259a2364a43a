"""A tiny model in which the last layers may read keys and values of layers before them."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Gemma4ForCausalLM, Gemma4TextConfig

from tests.conftest import VOCABULARY


def write_gemma4(folder: Path, num_that_share: int, *, tokenizer: Path) -> Path:
    """Write it, with the tokenizer of another tiny model."""
    sizes: dict[str, Any] = {"global_head_dim": 16}  # of one model's attention alone
    config = Gemma4TextConfig(
        **sizes,
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_kv_shared_layers=num_that_share,
        hidden_size_per_layer_input=0,
        vocab_size_per_layer_input=VOCABULARY,
        layer_types=["sliding_attention", "full_attention"] * 2,
        sliding_window=32,
    )
    torch.manual_seed(0)
    model = Gemma4ForCausalLM(config)
    nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(folder)
    for file in [*tokenizer.glob("tokenizer*"), *tokenizer.glob("chat_template*")]:
        shutil.copy(file, folder)
    return folder
