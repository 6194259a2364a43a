"""Block scales by an algorithm: harness against nvidia-modelopt 0.47.0, whose sweeps need a GPU."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.algorithms import Headroom, SecondMoments, quantize_weights
from harness.artifacts import Algorithm, Scales

modelopt = pytest.importorskip("modelopt.torch.quantization")

CASES = {
    "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG": Scales.MSE,
    "NVFP4_FOUR_OVER_SIX_CFG": Scales.FOUR_OVER_SIX,
    "NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG": Scales.LOCAL_HESSIAN,
}


def peer(weight_OI: Tensor, inputs_NI: Tensor, config: str) -> dict[str, Tensor]:
    """Return what the peer stores of a linear layer."""
    from modelopt.torch.export.unified_export_hf import (  # noqa: PLC0415 -- where there is one
        _export_quantized_weight,
    )

    layer = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=False)
    layer.weight.data = weight_OI.clone()
    model = nn.Sequential(layer).to(weight_OI)
    settings: dict[str, Any] = copy.deepcopy(getattr(modelopt, config))
    modelopt.quantize(model, settings, lambda m: m(inputs_NI))
    _export_quantized_weight(model[0], weight_OI.dtype)
    return dict(model[0].state_dict()) | dict(model[0].named_buffers())


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_ranges_with_headroom_are_the_peer_s_to_the_bit(spread: float) -> None:
    from modelopt.torch.quantization.calib import (  # noqa: PLC0415 -- where there is one
        NVFP4ActHeadroomCalibrator,
    )

    generator = torch.Generator().manual_seed(0)
    theirs, ours, largest = NVFP4ActHeadroomCalibrator(), Headroom(), 0.0
    for _ in range(3):
        each = torch.exp2(spread * torch.randn(64, 256, generator=generator))
        inputs = (torch.randn(64, 256, generator=generator) * each).bfloat16()
        inputs[::7] = 0
        theirs.collect(inputs)
        ours.see(inputs)
        largest = max(largest, float(inputs.abs().max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where there is no room
        found = theirs.compute_amax()
    assert found is not None
    assert ours.amax(largest) == float(found)


def test_without_any_input_but_zeros_the_range_is_that_of_the_largest_value() -> None:
    ours = Headroom()
    ours.see(torch.zeros(4, 32))
    assert ours.amax(3.0) == 3.0  # as given


@pytest.mark.gpu
@pytest.mark.parametrize("config", CASES)
def test_scales_and_codes_are_the_peer_s(config: str, tmp_path: Path) -> None:
    del tmp_path
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(256, 512, generator=generator) * torch.rand(256, 1, generator=generator)
    weight = weight.bfloat16().cuda()
    inputs = torch.randn(1 << 15, 512, generator=generator) * torch.rand(512, generator=generator)
    inputs = inputs.bfloat16().cuda()
    theirs = peer(weight, inputs, config)
    x = inputs.float()
    ours = quantize_weights(
        weight[None],
        Algorithm(scales=CASES[config]),
        amax=[float(weight.abs().max())],
        moments=SecondMoments((x.mT @ x)[None], torch.tensor([len(x)], device="cuda")),
    )
    assert float(ours["weight_scale_2"]) == float(theirs["weight_scale_2"])
    same = ours["weight_scale"][0].float() == theirs["weight_scale"].float()
    codes = (ours["weight"][0] == theirs["weight"]).float()
    # A scale's error is a sum whose order the peer's kernel chooses: equals may swap.
    assert float(same.float().mean()) > 0.999
    assert float(codes.mean()) > 0.999
