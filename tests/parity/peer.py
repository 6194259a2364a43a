"""Not a test: runs Model-Optimizer, in a process of its own, on jobs that a test wrote down.

It patches libraries when it is imported and warns a lot, so it stays out of the tests' process.

argv[1] is a JSON file: {"exports": [...], "matrices": path or null, "decode": [...], "casts": ...}
* exports: quantize `model` by the preset `qformat` (and `kv_cache`) on the token ids in `batches`,
  and write its checkpoint to `into`.
* matrices: a safetensors file of weights; write the peer's nvfp4 tensors beside it.
* casts: a safetensors file of NAME.blocks and NAME.scales in MXFP4; write the peer's nvfp4 tensors
  of its cast without loss beside it.
* decode: dequantize every nvfp4 weight of the checkpoint `folder` into the file `into`.
"""

import copy
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

warnings.simplefilter("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402 -- it warns at import
from modelopt.recipe import load_recipe  # noqa: E402
from modelopt.torch.export import export_hf_checkpoint  # noqa: E402
from modelopt.torch.export.shard_cast_utils import (  # noqa: E402
    mxfp4_kmax,
    quantize_mxfp4_to_nvfp4_lossless,
)
from modelopt.torch.quantization.config import _load_quantize_config_dict  # noqa: E402
from modelopt.torch.quantization.qtensor import NVFP4QTensor  # noqa: E402

PRESETS = {
    "nvfp4": mtq.NVFP4_DEFAULT_CFG,
    "nvfp4_experts_only": mtq.NVFP4_EXPERTS_ONLY_CFG,
    "nvfp4_mlp_only": mtq.NVFP4_MLP_ONLY_CFG,
    "w4a16_nvfp4": mtq.W4A16_NVFP4_CFG,
    "fp8": mtq.FP8_DEFAULT_CFG,
    "fp8_block": mtq.FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG,
    "fp8_per_channel_per_token": mtq.FP8_PER_CHANNEL_PER_TOKEN_CFG,
    "mxfp8": mtq.MXFP8_DEFAULT_CFG,
    "mxfp4": mtq.MXFP4_DEFAULT_CFG,
}

RECIPES = {
    "w4a16_nvfp4_fp8_attention": (
        "huggingface/qwen3_5_moe/ptq/w4a16_nvfp4-fp8_attn-kv_fp8_cast.yaml"
    )
}
"""Of the peer's own, by the name of ours."""


def preset_of(qformat: str) -> dict[str, Any]:
    if qformat in RECIPES:
        recipe: Any = load_recipe(RECIPES[qformat])
        quantize: dict[str, Any] = recipe.quantize.model_dump()
        return quantize
    return copy.deepcopy(PRESETS[qformat])


def export(job: dict[str, str]) -> None:
    config = json.loads((Path(job["model"]) / "config.json").read_bytes())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(job["model"], dtype=torch.bfloat16).eval()
    preset = preset_of(job["qformat"])
    if job["kv_cache"] != "none":
        kv_cache = _load_quantize_config_dict(f"configs/ptq/presets/kv/{job['kv_cache']}")
        preset["quant_cfg"] = [*preset["quant_cfg"], *kv_cache["quant_cfg"]]
    batches = load_file(job["batches"])

    def run(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            for name in sorted(batches):
                model(input_ids=batches[name], use_cache=False)

    export_hf_checkpoint(mtq.quantize(model, preset, run), export_dir=job["into"])


def quantize_matrices(path: Path) -> None:
    out: dict[str, Tensor] = {}
    for name, weight in load_file(path).items():
        packed, scale, scale_2 = NVFP4QTensor.quantize(weight, 16)
        out |= {
            f"{name}.weight": packed._quantized_data,  # noqa: SLF001 -- the packed bytes
            f"{name}.weight_scale": scale,
            f"{name}.weight_scale_2": scale_2,
        }
    save_file(out, path.with_suffix(".peer"))


def cast(path: Path) -> None:
    tensors = load_file(path)
    out: dict[str, Tensor] = {}
    for name in [name for name in tensors if name.endswith(".blocks")]:
        layer, codes = name.removesuffix(".blocks"), tensors[name]
        scales = tensors[f"{layer}.scales"]
        packed, scale, scale_2, *_ = quantize_mxfp4_to_nvfp4_lossless(
            codes.flatten(-2), scales, mxfp4_kmax(scales), "cpu"
        )
        out |= {
            f"{layer}.weight": packed,
            f"{layer}.weight_scale": scale,
            f"{layer}.weight_scale_2": scale_2,
        }
    save_file(out, path.with_suffix(".peer"))


def decode(job: dict[str, str]) -> None:
    out: dict[str, Tensor] = {}
    for path in sorted(Path(job["folder"]).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 -- no mapping
                if name.endswith(".weight_scale_2"):
                    layer = name.removesuffix(".weight_scale_2")
                    packed = file.get_tensor(f"{layer}.weight")
                    shape = torch.Size((packed.shape[0], packed.shape[1] * 2))
                    out[layer] = NVFP4QTensor(shape, torch.float32, packed).dequantize(
                        dtype=torch.float32,
                        scale=file.get_tensor(f"{layer}.weight_scale"),
                        double_scale=file.get_tensor(name),
                        block_sizes={-1: 16},
                    )
    save_file(out, job["into"])


def main(jobs: dict[str, Any]) -> None:
    torch.set_num_threads(1)  # as the tests: sums in another order are other sums
    for job in jobs["exports"]:
        export(job)
    if jobs["matrices"]:
        quantize_matrices(Path(jobs["matrices"]))
    if jobs["casts"]:
        cast(Path(jobs["casts"]))
    for job in jobs["decode"]:
        decode(job)


main(json.loads(Path(sys.argv[1]).read_bytes()))
