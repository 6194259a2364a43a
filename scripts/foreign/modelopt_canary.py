"""Quantize the canary with nvidia-modelopt into a checkpoint of the unified layout.

    python -m scripts.foreign.modelopt_canary --qformat nvfp4 --into DIR

Run with a Python that has this project's `parity` extra (nvidia-modelopt 0.47.0). No accelerator:
calibration by the largest value measures and does not round, so the rounding kernels, which are
CUDA's, are never called. The export drops the multi-token prediction head and writes no tokenizer.
"""

import argparse
import warnings
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen3_5MoeForConditionalGeneration

from scripts.foreign.material import MAX_TOKENS, MODEL, calibration_texts, copy_sidecars

warnings.simplefilter("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402 -- it warns at import
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402

CONFIGS = {
    "nvfp4": mtq.NVFP4_DEFAULT_CFG,
    "nvfp4_experts_only": mtq.NVFP4_EXPERTS_ONLY_CFG,
    "w4a16_nvfp4": mtq.W4A16_NVFP4_CFG,
    "fp8": mtq.FP8_DEFAULT_CFG,
}


def main() -> None:
    """Quantize, write, and lay the tokenizer's files beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--qformat", choices=sorted(CONFIGS), default="nvfp4")
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=256)
    arguments = parser.parse_args()
    model = Qwen3_5MoeForConditionalGeneration.from_pretrained(MODEL, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    texts = calibration_texts(arguments.samples)

    def calibrate(quantized: torch.nn.Module) -> None:
        with torch.inference_mode():
            for text in texts:
                ids = tokenizer(text, return_tensors="pt")["input_ids"][:, :MAX_TOKENS]
                quantized(input_ids=ids, use_cache=False)

    quantized = mtq.quantize(model, CONFIGS[arguments.qformat], calibrate)
    export_hf_checkpoint(quantized, export_dir=str(arguments.into))
    copy_sidecars(arguments.into)


if __name__ == "__main__":
    main()
