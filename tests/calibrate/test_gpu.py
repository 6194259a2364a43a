"""The same calibration on a GPU."""

import dataclasses
from pathlib import Path

import pytest
import torch

from harness.artifacts import CalibrationStats
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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_size_of_a_batch_is_found_on_a_gpu(
    tiny_models: dict[str, Path], make_case: MakeCase
) -> None:
    case = make_case(tiny_models["qwen3_5_moe"])

    def run(batch_tokens: int | None) -> CalibrationStats:
        spec = dataclasses.replace(
            case.recipe.calibration, batch_tokens=batch_tokens, layerwise=True
        )
        recipe = dataclasses.replace(case.recipe, device="cuda", calibration=spec)
        return case._replace(recipe=recipe).run()

    found = run(None)
    assert found.batch_tokens in {4096 << doubled for doubled in range(5)}
    assert run(found.batch_tokens) == found
