"""What vLLM's own code takes layers for; asked by same_as_vllm.py, in vLLM's environment.

Reads a JSON list of cases, prints a JSON list of answers for each: the algorithm of every layer,
null for unquantized, `split` where vLLM stops. Nothing is built.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")

import torch
from vllm import __version__
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig,
)
from vllm.model_executor.layers.quantization.fp8 import Fp8Config
from vllm.model_executor.layers.quantization.modelopt import (
    ModelOptFp8Config,
    ModelOptMixedPrecisionConfig,
    ModelOptNvFp4Config,
)
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped
from vllm.model_executor.models.utils import WeightsMapper

_Json = dict[str, Any]
_MODELOPT = {
    "NVFP4": ModelOptNvFp4Config,
    "FP8": ModelOptFp8Config,
    "MIXED_PRECISION": ModelOptMixedPrecisionConfig,
}
_CLASSES = {
    name: type(name, (torch.nn.Module,), {})
    for name in ("QKVParallelLinear", "ParallelLMHead", "RoutedExperts", "FusedMoE")
}


def main() -> None:
    """Answer."""
    cases = json.load(sys.stdin)
    answers = [[_asked(case, layer) for layer in case["layers"]] for case in map(_opened, cases)]
    json.dump({"version": __version__.partition("+")[0], "answers": answers}, sys.stdout)


def _opened(case: _Json) -> _Json:
    """Add vLLM's own reading of the declaration, translated for the model."""
    section = case["section"]
    method = section["quant_method"]
    kinds = {"compressed-tensors": CompressedTensorsConfig, "fp8": Fp8Config}
    kind = kinds.get(method) or _MODELOPT[section["quant_algo"]]
    config = kind.from_config(json.loads(json.dumps(section)))
    if case["mapper"] is not None:
        rules = {f"orig_to_new_{rule}": names for rule, names in case["mapper"].items()}
        config.apply_vllm_mapper(WeightsMapper(**rules))
    config.packed_modules_mapping = case["fused"]
    return {**case, "config": config, "method": method}


def _asked(case: _Json, layer: _Json) -> str | None:
    try:
        return _answer(case, layer["name"], layer)
    except ValueError:
        return "split"


def _answer(case: _Json, name: str, layer: _Json) -> str | None:
    config, section = case["config"], case["section"]
    if case["method"] == "compressed-tensors":
        return _of_groups(config, name, layer)
    if case["method"] == "fp8":
        skipped = is_layer_skipped(name, config.ignored_layers, config.packed_modules_mapping)
        return None if skipped else "FP8_PER_BLOCK"
    if config.is_layer_excluded(name):
        return None
    algorithm: str | None = section["quant_algo"]
    if algorithm == "MIXED_PRECISION":
        algorithm = config._resolve_quant_algo(name)  # noqa: SLF001 -- the question itself
    return algorithm


def _of_groups(config: CompressedTensorsConfig, name: str, layer: _Json) -> str | None:
    if not layer["experts"]:
        kind = "ParallelLMHead" if name.endswith("lm_head") else "QKVParallelLinear"
        return _algorithm(config.get_scheme_dict(_CLASSES[kind](), name))
    config._add_fused_moe_to_target_scheme_map()  # noqa: SLF001 -- as get_moe_method does
    is_old = "FusedMoE" in config.target_scheme_map
    module = _CLASSES["FusedMoE" if is_old else "RoutedExperts"]()
    found = [config.get_scheme_dict(module, f"{name}.0.{one}") for one in layer["experts"]]
    if any(one != found[0] for one in found):
        message = "several schemes"
        raise ValueError(message)
    return _algorithm(found[0])


def _algorithm(scheme: _Json | None) -> str | None:
    if scheme is None:
        return None
    return "NVFP4" if scheme["weights"].num_bits == 4 else "FP8"  # noqa: PLR2004 -- bits of FP4


if __name__ == "__main__":
    main()
