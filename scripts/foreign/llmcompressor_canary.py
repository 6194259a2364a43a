"""Quantize the canary with llmcompressor into a checkpoint of the compressed-tensors layout.

    python -m scripts.foreign.llmcompressor_canary --scheme NVFP4 --into DIR

Run with a Python that has `llmcompressor==0.14.0.1` and `torch==2.13.0`; its pins (transformers
below 5.18, compressed-tensors 0.19.0) exclude ours, so it needs an environment of its own.

llmcompressor 0.14 splits this family's stacked experts into one linear layer each when the model is
loaded inside `load_context`, and runs every expert on every token while it calibrates. It copies
the multi-token prediction head, unquantized, into a file beside the weights. Schemes tried: NVFP4,
NVFP4A16, FP8 (one scale a tensor, static), FP8_DYNAMIC (one a row, input scales at run time).

Linear attention stays as it is, as in llmcompressor's own example for this family: its list of
layers that must share a global scale does not have `in_proj_qkv` and `in_proj_z`, which vLLM runs
as one layer with one scale. `--linear-attention` quantizes them all the same and so makes a
checkpoint with a real fault. `--routed-only-calibration` shows each expert only its own tokens.
"""

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.utils import load_context
from transformers import AutoTokenizer, Qwen3_5MoeForConditionalGeneration

from scripts.foreign.material import MAX_TOKENS, MODEL, calibration_texts, copy_sidecars

UNQUANTIZED = (
    "lm_head",
    "re:.*visual.*",
    "re:.*mlp.gate$",
    "re:.*mlp.shared_expert_gate$",
)
FP8_KEYS_AND_VALUES = {
    "num_bits": 8,
    "type": "float",
    "strategy": "tensor",
    "dynamic": False,
    "symmetric": True,
}
LINEAR_ATTENTION, NARROW = "re:.*linear_attn.*", "re:.*linear_attn.in_proj_[ab]$"


def main() -> None:
    """Quantize, write, and lay the tokenizer's files beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scheme", default="NVFP4")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--linear-attention", action="store_true")
    parser.add_argument("--routed-only-calibration", action="store_true")
    parser.add_argument("--kv-fp8", action="store_true")
    arguments = parser.parse_args()
    ignore = [*UNQUANTIZED, NARROW if arguments.linear_attention else LINEAR_ATTENTION]
    with load_context(Qwen3_5MoeForConditionalGeneration):
        model = Qwen3_5MoeForConditionalGeneration.from_pretrained(MODEL, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = [tokenizer(t)["input_ids"][:MAX_TOKENS] for t in calibration_texts(arguments.samples)]
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids]
    oneshot(
        model=model,
        processor=tokenizer,  # the model's own would need torchvision, for images
        dataset=Dataset.from_list(rows),
        recipe=QuantizationModifier(
            targets="Linear",
            scheme=arguments.scheme,
            ignore=ignore,
            kv_cache_scheme=FP8_KEYS_AND_VALUES if arguments.kv_fp8 else None,
        ),
        max_seq_length=MAX_TOKENS,
        num_calibration_samples=len(rows),
        moe_calibrate_all_experts=not arguments.routed_only_calibration,
    )
    model.save_pretrained(arguments.into, save_compressed=True)
    copy_sidecars(arguments.into)


if __name__ == "__main__":
    main()
