"""The same calibration on a GPU."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.calibrate.conftest import MakeCase


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("family", ["qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3"])
def test_layer_by_layer_equals_the_whole_run_on_a_gpu(
    tiny_models: dict[str, Path], make_case: MakeCase, family: str
) -> None:
    case = make_case(tiny_models[family])
    on_gpu = case._replace(recipe=dataclasses.replace(case.recipe, device="cuda"))
    spec = dataclasses.replace(case.recipe.calibration, layerwise=True)
    layerwise = on_gpu._replace(recipe=dataclasses.replace(on_gpu.recipe, calibration=spec))
    whole = on_gpu.run()
    assert layerwise.run() == whole
    assert whole.weight_amax == case.run().weight_amax
    assert whole.input_amax == pytest.approx(case.run().input_amax, rel=0.05)
