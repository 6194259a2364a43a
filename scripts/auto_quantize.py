"""Let nvidia-modelopt's AutoQuantize choose formats for a model; `tune_table` measures the result.

    python -m scripts.auto_quantize MODEL TEXTS OUT --bits 5 --size N --seq L --device cuda

It chooses between its NVFP4, its FP8 and no quantization for each group of layers, by gradients of
the loss. Its effective bits count as those of `harness tune` here: 4.5 a weight of NVFP4, with the
output layer, which is not quantized, left out of the mean. Its kernel that rounds to NVFP4 and back
wants a GPU; on a CPU plain torch computes the same in its place.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> int:
    """Make one checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bits", type=float, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("--device", default="cuda")
    typed = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(typed.model)
    lines = typed.texts.read_text(encoding="utf-8").splitlines()[: typed.size]
    ids = [tokenizer(json.loads(line)["text"])["input_ids"][: typed.seq] for line in lines]
    batches = [torch.tensor([one]).to(typed.device) for one in ids if len(one) > 1]
    model = AutoModelForCausalLM.from_pretrained(typed.model, dtype=torch.bfloat16)
    model = model.to(typed.device).eval()
    model = _chosen(model, batches, typed.bits)
    from modelopt.torch.export import export_hf_checkpoint  # noqa: PLC0415 -- takes seconds

    export_hf_checkpoint(model, export_dir=typed.out)
    tokenizer.save_pretrained(typed.out)
    return 0


def _chosen(model: Any, batches: list[Tensor], bits: float) -> Any:  # noqa: ANN401  # transformers
    import modelopt.torch.quantization as mtq  # noqa: PLC0415 -- takes seconds
    from modelopt.torch.quantization import tensor_quant  # noqa: PLC0415 -- as above

    if batches[0].device.type == "cpu":
        tensor_quant.dynamic_block_quantize_op = _rounded
    found, _ = mtq.auto_quantize(
        model,
        constraints={
            "effective_bits": bits,
            "cost": {"excluded_module_name_patterns": ["*lm_head*"]},
        },
        quantization_formats=[mtq.NVFP4_DEFAULT_CFG, mtq.FP8_DEFAULT_CFG],
        data_loader=batches,
        forward_step=lambda running, ids_BT: running(input_ids=ids_BT, labels=ids_BT),
        loss_func=lambda output, _: output.loss,
        disabled_layers=["*lm_head*"],
        num_calib_steps=len(batches),
        num_score_steps=len(batches),
        method="gradient",
    )
    return found


def _rounded(input: Tensor, block_size: int, amax: Tensor, *numbers: int) -> Tensor:  # noqa: A002 -- modelopt's
    """Round to NVFP4 and back: blocks of E2M1, whose scales are E4M3 numbers times a global one."""
    if numbers != (4, 2, 8, 4):  # bits of a code and of its exponent, of a scale and of its
        sys.exit(f"only NVFP4 is rounded on a CPU, not {numbers}")
    largest_code, largest_scale = 6.0, 448.0
    scale = amax.float().max() / (largest_code * largest_scale)
    blocks = input.float().reshape(*input.shape[:-1], -1, block_size)
    wanted = blocks.abs().amax(-1, keepdim=True) / (largest_code * scale)
    steps = wanted.clamp(2.0**-9, largest_scale).to(torch.float8_e4m3fn).float() * scale
    codes = (blocks / steps).clamp(-largest_code, largest_code)
    # Between powers of two there is one number more: steps of 0.5, from 2 on of 1, from 4 on of 2.
    fine = torch.exp2(codes.abs().clamp(min=1).log2().floor() - 1)
    rounded: Tensor = ((codes / fine).round() * fine * steps).reshape(input.shape).to(input.dtype)
    return rounded


if __name__ == "__main__":
    sys.exit(main())
