"""nvidia-modelopt 0.47.0 on the same model and token ids, as its own example script runs it.

    python -m scripts.bench.peer MODEL IDS.jsonl OUT --device cuda --batch 64

Prints the seconds from the loaded model to the written checkpoint, by part, as the last line. One
batch is run before they count.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import torch
from transformers import Qwen3_5MoeForConditionalGeneration

warnings.simplefilter("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402 -- it warns at import
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402


def main() -> None:
    """Load, quantize, export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("ids", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    model = Qwen3_5MoeForConditionalGeneration.from_pretrained(
        arguments.model, dtype=torch.bfloat16, device_map=arguments.device
    )
    lines = arguments.ids.read_text(encoding="utf-8").splitlines()
    ids_ST = torch.tensor([json.loads(line)["input_ids"] for line in lines]).to(arguments.device)

    def calibrate(quantized: torch.nn.Module) -> None:
        with torch.inference_mode():
            for batch_BT in torch.split(ids_ST, arguments.batch):
                quantized(input_ids=batch_BT, use_cache=False, logits_to_keep=1)

    with torch.inference_mode():  # libraries are loaded and kernels compiled before it counts
        model(input_ids=ids_ST[: arguments.batch], use_cache=False, logits_to_keep=1)
    _wait(arguments.device)
    started = time.perf_counter()
    quantized = mtq.quantize(model, mtq.NVFP4_DEFAULT_CFG, calibrate)
    _wait(arguments.device)
    calibrated = time.perf_counter()
    export_hf_checkpoint(quantized, export_dir=str(arguments.out))
    _wait(arguments.device)
    ended = time.perf_counter()
    seconds = {"calibrate": calibrated - started, "export": ended - calibrated}
    print(json.dumps(seconds | {"total": ended - started}))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
