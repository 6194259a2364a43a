"""Not a test: says which quantizers Model-Optimizer's own recipes turn on in a model, and how.

argv[1] is a JSON file: {"model": folder, "recipes": [path, ...], "into": path}. What is written is
{recipe: {quantizer: attributes}} of those that are on, or {recipe: null} where it cannot be loaded.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

warnings.simplefilter("ignore")
import modelopt.torch.quantization as mtq  # noqa: E402 -- it warns at import
from modelopt.recipe import load_recipe  # noqa: E402
from modelopt.torch.opt.config_loader import load_config  # noqa: E402
from modelopt.torch.quantization.config import QuantizeConfig  # noqa: E402
from modelopt.torch.quantization.nn import TensorQuantizer  # noqa: E402


def entries_of(path: str) -> Any:  # noqa: ANN401 -- the list of a pydantic model
    try:
        return load_recipe(path).quantize.quant_cfg
    except ValueError:
        return load_config(path, schema_type=QuantizeConfig).quant_cfg


def turned_on(model: torch.nn.Module) -> dict[str, Any]:
    return {
        name: {
            "num_bits": quantizer.num_bits,
            "block_sizes": {str(k): v for k, v in (quantizer.block_sizes or {}).items()},
            "axis": quantizer.axis,
            "dynamic": bool(quantizer._dynamic),  # noqa: SLF001 -- no other way to it
            "constant": bool(getattr(quantizer, "_use_constant_amax", False)),
        }
        for name, quantizer in model.named_modules()
        if isinstance(quantizer, TensorQuantizer) and quantizer.is_enabled
    }


def main(job: dict[str, Any]) -> None:
    config = json.loads((Path(job["model"]) / "config.json").read_bytes())
    model_class = getattr(transformers, config["architectures"][0])
    model = model_class.from_pretrained(job["model"], dtype=torch.bfloat16).eval()
    start = {"quant_cfg": mtq.NVFP4_DEFAULT_CFG["quant_cfg"], "algorithm": None}
    kv_cache = entries_of("configs/ptq/presets/kv/fp8")
    start["quant_cfg"] = [*start["quant_cfg"], *[dict(one) for one in kv_cache]]
    model = mtq.quantize(model, start)
    found: dict[str, Any] = {}
    for path in job["recipes"]:
        mtq.set_quantizer_by_cfg(model, entries_of(path))
        found[path] = turned_on(model)
    Path(job["into"]).write_text(json.dumps(found), encoding="utf-8")


main(json.loads(Path(sys.argv[1]).read_bytes()))
