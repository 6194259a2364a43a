"""Scales that are a little off, and scales that cut off what is large: the first are faults."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.artifacts import Check
from tests.verify.test_source import Model, Tensors, quantized, to_e2m1

LAYERS = [f"model.layers.{number}.mlp.down_proj" for number in range(5)]
ONE = LAYERS[2]
FORMATS = ("NVFP4", "W4A16_NVFP4", "MXFP8", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_PB_WO")


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Model]:
    return lambda algo: Model(tmp_path, algo, LAYERS)


Make = Callable[[str], Model]


def found(model: Model) -> Check:
    (check,) = (one for one in model.verify().checks if one.id == "weights-near-source")
    return check


def rescaled(tensors: Tensors, factor: float) -> None:
    """Multiply all scales of one weight, as those of another expert may be."""
    leaf = "weight_scale_2" if f"{ONE}.weight_scale_2" in tensors else "weight_scale"
    tensors[f"{ONE}.{leaf}"] = tensors[f"{ONE}.{leaf}"] * factor


def with_scales(model: Model, name: str, factor_OB: Tensor) -> None:
    """Round a weight once more, with other scales of its blocks."""

    def edit(tensors: Tensors) -> None:
        kept = tensors[f"{name}.weight_scale"].float() * factor_OB
        scale = kept.to(torch.float8_e4m3fn)
        step = (scale.float() * tensors[f"{name}.weight_scale_2"]).repeat_interleave(16, 1)
        codes = to_e2m1(model.weights[f"{name}.weight"].float() / step)
        tensors |= {f"{name}.weight_scale": scale, f"{name}.weight": codes}

    model.change(edit)


@pytest.mark.parametrize("factor", [0.97, 0.98, 1.02, 1.03])
@pytest.mark.parametrize("algo", [one for one in FORMATS if one != "MXFP8"])
def test_a_scale_that_is_two_percent_off_is_named_and_measured(
    made: Make, algo: str, factor: float
) -> None:
    model = made(algo)
    model.change(lambda tensors: rescaled(tensors, factor))
    check = found(model)
    assert check.num_faulty == 1
    assert check.examples[0].startswith(ONE)
    measured = float(check.message.split("its scale is ")[1].split(" times")[0])
    assert measured == pytest.approx(factor, abs=0.005)


@pytest.mark.parametrize("algo", FORMATS)
def test_weights_as_they_should_be_are_all_near(made: Make, algo: str) -> None:
    assert found(made(algo)).passed


def test_scales_that_cut_off_what_is_large_are_no_other_scales(made: Make) -> None:
    """As the local Hessian chooses them for an expert of few tokens: 3.5 % of the weight."""
    model = made("NVFP4")
    is_chosen = torch.rand(256, 16, generator=torch.Generator().manual_seed(1)) < 0.7
    with_scales(model, ONE, torch.where(is_chosen, 0.8, 1.0))
    assert found(model).passed
    model.change(lambda tensors: rescaled(tensors, 0.97))
    check = found(model)
    assert check.examples[0].startswith(ONE)
    assert "its scale is 0.9" in check.message


def test_scales_that_cut_off_what_is_large_everywhere_are_a_fault(made: Make) -> None:
    model = made("NVFP4")
    for name in LAYERS:
        with_scales(model, name, torch.full((256, 16), 0.85))
    check = found(model)
    assert check.num_faulty == len(LAYERS)
    assert "its scales are so small that codes cannot hold" in check.message


@pytest.mark.parametrize("algo", ["MXFP4", "NVFP4", "MXFP8", "FP8"])
def test_values_that_are_spread_otherwise_are_near_too(made: Make, algo: str) -> None:
    """Half of one weight's rows have values that are all as likely."""
    model = made(algo)
    weight = model.weights[f"{ONE}.weight"].float()
    weight[::2] = torch.rand(128, 256, generator=torch.Generator().manual_seed(2)) * 0.08 - 0.04
    model.weights[f"{ONE}.weight"] = weight.bfloat16()
    save_file(model.weights, model.source / "model.safetensors")
    stored = quantized(model.weights[f"{ONE}.weight"], algo)
    model.change(lambda tensors: tensors.update({f"{ONE}.{n}": t for n, t in stored.items()}))
    assert found(model).passed


@pytest.mark.parametrize("few", [(slice(None), slice(7, 8)), (slice(7, 8), slice(None))])
def test_a_few_columns_or_rows_that_make_up_for_others_are_no_other_scales(
    made: Make, few: tuple[slice, slice]
) -> None:
    """As GPTQ leaves those with outliers: a sixth larger, and the weight by 3 %."""
    model = made("NVFP4")
    weight = model.weights[f"{ONE}.weight"]
    weight[few] *= 8
    save_file(model.weights, model.source / "model.safetensors")
    larger = weight.clone()
    larger[few] *= 1.16
    stored = quantized(larger, "NVFP4")
    model.change(lambda tensors: tensors.update({f"{ONE}.{n}": t for n, t in stored.items()}))
    assert found(model).passed
    model.change(lambda tensors: rescaled(tensors, 1.03))
    check = found(model)
    assert check.num_faulty == 1
    assert "its scale is 1.0" in check.message


def test_scales_that_are_wrong_in_a_part_of_the_rows_are_named(made: Make) -> None:
    model = made("FP8_PER_CHANNEL_PER_TOKEN")

    def edit(tensors: Tensors) -> None:
        tensors[f"{ONE}.weight_scale"][:110] *= 1.04  # of 256

    model.change(edit)
    assert found(model).num_faulty == 1
