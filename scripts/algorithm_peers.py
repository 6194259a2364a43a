"""Make an NVFP4 checkpoint with another tool; `algorithms_table` measures it.

    python -m scripts.algorithm_peers NAME MODEL TEXTS OUT --size N --seq L --device cuda

NAME is a tool, an algorithm and a format, such as `modelopt-mse-nvfp4` or
`llmcompressor-gptq-w4a16_nvfp4`. TEXTS is a JSON lines file of texts or token ids, of which the
first N samples of L tokens are taken. Runs in the tool's own environment, without harness. The last
line that it prints has the seconds from the loaded model to the written files.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

MODELOPT = {
    "max": "NVFP4_DEFAULT_CFG",
    "mse": "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG",
    "four_over_six": "NVFP4_FOUR_OVER_SIX_CFG",
    "local_hessian": "NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG",
    "gptq": "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG",
}
_GPTQ = {"method": "gptq", "layerwise": {"enable": True}, "fused": torch.cuda.is_available()}
"""As its own recipe has it (`nvfp4_default-kv_none-gptq`), with its kernel where there is a GPU."""
LLMCOMPRESSOR = ("max", "gptq")
_LEFT = ["lm_head", "re:.*visual.*", r"re:.*mlp\.gate$", r"re:.*shared_expert_gate$"]
"""What its own examples leave as it is."""


def names(number_format: str) -> list[str]:
    """Return the peers' ways to a format."""
    return [
        *(f"modelopt-{name}-{number_format}" for name in MODELOPT),
        *(f"llmcompressor-{name}-{number_format}" for name in LLMCOMPRESSOR),
    ]


def main() -> int:
    """Make one."""
    typed = _typed()
    tokenizer = AutoTokenizer.from_pretrained(typed.model)
    samples = [json.loads(line) for line in typed.texts.read_text(encoding="utf-8").splitlines()]
    ids = [
        torch.tensor(
            one.get("input_ids") or tokenizer(one["text"])["input_ids"], device=typed.device
        )
        for one in samples[: typed.size]
    ]
    kind = AutoConfig.from_pretrained(typed.model).architectures[0]
    model = getattr(transformers, kind).from_pretrained(typed.model, dtype=torch.bfloat16)
    model = model.to(typed.device).eval()
    started = time.perf_counter()
    _make(typed, model, tokenizer, [one[: typed.seq] for one in ids])
    if typed.device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    tokenizer.save_pretrained(typed.out)
    print(json.dumps({"seconds": seconds}))
    return 0


def _make(typed: argparse.Namespace, model: Any, tokenizer: Any, ids: list[Tensor]) -> None:  # noqa: ANN401  # transformers
    tool, algorithm, number_format = typed.name.split("-")
    is_weight_only = number_format.startswith("w4a16")
    make: Callable[..., None] = _modelopt
    if tool == "llmcompressor":
        make = partial(_llmcompressor, tokenizer)
    make(model, ids, algorithm, weight_only=is_weight_only)
    if tool == "modelopt":
        from modelopt.torch.export import export_hf_checkpoint  # noqa: PLC0415 -- of one tool

        export_hf_checkpoint(model, export_dir=typed.out)
    else:
        model.save_pretrained(typed.out, save_compressed=True)


def _typed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("name")
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--seq", type=int, required=True)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


def _modelopt(model: Any, ids: list[Tensor], algorithm: str, *, weight_only: bool) -> None:  # noqa: ANN401  # transformers
    import modelopt.torch.quantization as mtq  # noqa: PLC0415 -- of one tool

    settings = dict(getattr(mtq, MODELOPT[algorithm]))
    if weight_only:
        off = {"quantizer_name": "*input_quantizer", "enable": False}
        settings["quant_cfg"] = [*settings["quant_cfg"], off]
    if algorithm == "gptq":
        settings["algorithm"] = _GPTQ

    def run(quantized: Any) -> None:  # noqa: ANN401  # as above
        for one in ids:
            quantized(input_ids=one[None], use_cache=False)

    with torch.no_grad():
        mtq.quantize(model, settings, run)


def _llmcompressor(
    tokenizer: Any,  # noqa: ANN401  # transformers
    model: Any,  # noqa: ANN401  # transformers
    ids: list[Tensor],
    algorithm: str,
    *,
    weight_only: bool,
) -> None:
    from llmcompressor import oneshot  # noqa: PLC0415 -- of one tool
    from llmcompressor.modifiers.gptq import GPTQModifier  # noqa: PLC0415
    from llmcompressor.modifiers.quantization import QuantizationModifier  # noqa: PLC0415
    from torch.utils.data import DataLoader  # noqa: PLC0415

    modifier = GPTQModifier if algorithm == "gptq" else QuantizationModifier
    scheme = "NVFP4A16" if weight_only else "NVFP4"
    rows = [{"input_ids": one.cpu(), "attention_mask": torch.ones_like(one.cpu())} for one in ids]
    oneshot(
        model=model,
        dataset=DataLoader(rows, batch_size=1),  # type: ignore[arg-type]  # a list does
        recipe=modifier(targets="Linear", scheme=scheme, ignore=_LEFT),
        processor=tokenizer,  # that of a model which sees images too would be looked for
        num_calibration_samples=len(rows),
    )


if __name__ == "__main__":
    sys.exit(main())
