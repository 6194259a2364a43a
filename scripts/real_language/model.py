"""Make the language model twice: as it is, and with its MLPs as fused experts.

A gated MLP is a sum over its neurons, so its neurons can be dealt out to experts: with all of them
active at equal weight and their output projections scaled by their number, the sum is the same.
Routers are zero, which gives equal weights. The two models differ by rounding alone, and what
quantization, an export or an engine does to experts is seen on real language.

The weights come from 4-bit codes: they are harder on NVFP4 than those of a native model.

Shapes: E experts, W neurons of an expert, H hidden features.
"""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

NUM_EXPERTS = 8
_KEPT = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "rms_norm_eps"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings"),
    *("tie_word_embeddings", "bos_token_id", "eos_token_id", "pad_token_id", "attention_dropout"),
)


def make_dense(gguf: Path, into: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face folder in bfloat16."""
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    _save(_in_bfloat16(model), tokenizer, into)


def make_experts(dense: Path, into: Path) -> None:
    """Write the model in `dense` with experts in place of its MLPs."""
    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.bfloat16)
    config = model.config
    width = config.intermediate_size // NUM_EXPERTS
    make: Any = MixtralForCausalLM  # transformers leaves it untyped
    spread = make(
        MixtralConfig(
            **{key: getattr(config, key) for key in _KEPT if hasattr(config, key)},
            rope_parameters=dict(config.rope_parameters),
            intermediate_size=width,
            num_local_experts=NUM_EXPERTS,
            num_experts_per_tok=NUM_EXPERTS,
            sliding_window=None,
        )
    )
    spread = _in_bfloat16(spread)
    weights = model.state_dict()
    spread.load_state_dict({name: _dealt_out(name, old, weights) for name, old in _named(spread)})
    spread.tie_weights()
    _save(spread, AutoTokenizer.from_pretrained(dense), into)


def _in_bfloat16(model: PreTrainedModel) -> PreTrainedModel:
    moved: Any = model.to  # transformers leaves it untyped
    found: PreTrainedModel = moved(torch.bfloat16)
    return found


def _named(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    return list(model.state_dict().items())


def _dealt_out(name: str, like: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Return the tensor `name` of the model with experts, of the shape of `like`."""
    mlp, is_expert, what = name.partition("experts.")
    if name.endswith("mlp.gate.weight"):
        return torch.zeros_like(like)
    if not is_expert:
        return weights[name]
    if what == "gate_up_proj":
        halves = [weights[f"{mlp}{part}.weight"] for part in ("gate_proj", "up_proj")]
        split_EWH = [half.view(NUM_EXPERTS, -1, half.shape[1]) for half in halves]
        return torch.cat(split_EWH, dim=1)
    down = weights[f"{mlp}down_proj.weight"]
    parts_HEW = down.view(down.shape[0], NUM_EXPERTS, -1)
    return (parts_HEW.permute(1, 0, 2) * NUM_EXPERTS).contiguous()


def _save(model: PreTrainedModel, tokenizer: Any, into: Path) -> None:  # noqa: ANN401 -- any class
    part = into.with_name(f"{into.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(into)
