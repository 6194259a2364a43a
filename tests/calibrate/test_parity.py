"""Names and ranges are Model-Optimizer's, on the same batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.artifacts import KvFormat
from harness.calibrate.samples import make_batches, read_samples
from harness.models import load_model
from tests.calibrate.conftest import MakeCase
from tests.tiers import slow

_UNPLANNED = ("visual", "in_proj_a", "in_proj_b", "shared_expert_gate", "lm_head")


@pytest.fixture(scope="module")
@slow("nvidia-modelopt takes many seconds to import")
def mtq() -> Any:  # noqa: ANN401 - an untyped library
    return pytest.importorskip("modelopt.torch.quantization")


# Model-Optimizer warns about the version of transformers and about its own imports.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"])
def test_quantizers_and_ranges_are_those_of_model_optimizer(
    tiny_models: dict[str, Path],
    make_case: MakeCase,
    mtq: Any,  # noqa: ANN401 - an untyped library
    family: str,
) -> None:
    case = make_case(
        tiny_models[family],
        kv_cache=KvFormat.NONE,
        planned=lambda linear: not any(part in linear.name for part in _UNPLANNED),
    )
    spec = case.recipe.calibration
    batches = make_batches(read_samples(spec, case.source), batch_tokens=spec.batch_tokens or 0)
    model = load_model(case.source, case.inventory, device="cpu", dtype=torch.bfloat16)

    def run(peer: nn.Module) -> None:
        for batch in batches:
            peer(input_ids=batch)

    mtq.quantize(model, mtq.NVFP4_DEFAULT_CFG, forward_loop=run)
    peer = {
        name: float(module.amax)
        for name, module in model.named_modules()
        if type(module).__name__ == "TensorQuantizer"
        and module.is_enabled
        and module.amax is not None
    }
    stats = case.run()
    weights = {
        p.linear.weight_quantizer: stats.weight_amax[p.linear.name] for p in case.plan.quantized
    }
    for planned in case.plan.quantized:  # gate and up of an expert share a quantizer
        name, value = planned.linear.weight_quantizer, stats.weight_amax[planned.linear.name]
        weights[name] = max(weights[name], value)
    assert weights | dict(stats.input_amax) == peer
