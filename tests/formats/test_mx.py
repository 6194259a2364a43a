"""MXFP8 and MXFP4 against plain arithmetic, one block at a time."""

import math

import pytest
import torch
from torch import Tensor

from harness.formats import get_format

MXFP8, MXFP4 = get_format("mxfp8"), get_format("mxfp4")
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def weights(rows: int = 5, width: int = 96) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(rows, width, generator=generator).pow(3).bfloat16()
    weight[1, 32:64] = 0
    weight[2, 0] = -0.0
    return weight


def step_of(block: Tensor, largest: float) -> float:
    """The least power of two by which all values are at most `largest`."""
    amax = float(block.abs().max())
    if amax == 0:
        return 2.0**-127
    return 2.0 ** math.ceil(math.log2(amax / largest))


@pytest.mark.parametrize(("name", "largest"), [("mxfp8", 448.0), ("mxfp4", 6.0)])
def test_each_block_has_the_least_power_of_two_that_holds_it(name: str, largest: float) -> None:
    weight = weights()
    stored = get_format(name).quantize_weight(weight, amax=float(weight.abs().max()))
    for row in range(5):
        for block in range(3):
            step = step_of(weight[row, 32 * block : 32 * block + 32].float(), largest)
            assert stored["weight_scale"][row, block].item() == round(math.log2(step)) + 127


def test_mxfp8_rounds_to_the_nearest_code() -> None:
    weight = weights()
    stored = MXFP8.quantize_weight(weight, amax=1.0)
    step = torch.exp2(stored["weight_scale"].float() - 127).repeat_interleave(32, dim=1)
    expected = (weight.float() / step).clamp(-448, 448).to(torch.float8_e4m3fn)
    assert torch.equal(stored["weight"].view(torch.uint8), expected.view(torch.uint8))
    decoded = MXFP8.dequantize_weight(stored, dtype=torch.float32)
    assert torch.equal(decoded, expected.float() * step)


def code_of(value: float) -> int:
    """Nearest E2M1 value; of two that are as near, the smaller; zero has a sign."""
    magnitude = min(E2M1, key=lambda one: (abs(one - abs(value)), one))
    return E2M1.index(magnitude) + (8 if value <= 0 else 0)


def test_mxfp4_rounds_to_the_nearest_code_and_halves_down() -> None:
    weight = weights()
    weight[0, :8] = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, -5.0])
    weight[0, 8:32] = 0.5
    weight[0, 31] = 6.0
    stored = MXFP4.quantize_weight(weight, amax=1.0)
    step = torch.exp2(stored["weight_scale"].float() - 127).repeat_interleave(32, dim=1)
    codes = [[code_of(float(v)) for v in row] for row in weight.float() / step]
    packed = [[low | high << 4 for low, high in zip(r[::2], r[1::2], strict=True)] for r in codes]
    assert stored["weight"].tolist() == packed
    values = torch.tensor([[E2M1[c & 7] * (-1 if c & 8 else 1) for c in row] for row in codes])
    assert torch.equal(MXFP4.dequantize_weight(stored, dtype=torch.float32), values * step)


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
def test_inputs_are_rounded_as_weights_are(name: str) -> None:
    x = weights()
    stored = get_format(name).quantize_weight(x, amax=1.0)
    decoded = get_format(name).dequantize_weight(stored, dtype=x.dtype)
    assert torch.equal(get_format(name).qdq_input(x, input_scale=None), decoded)


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
def test_many_weights_are_quantized_as_one_by_one(name: str) -> None:
    weight_EOI = torch.stack([weights(), weights() * 3, weights() / 7])
    together = get_format(name).quantize_weights(weight_EOI, amax=[1.0] * 3)
    for index, weight in enumerate(weight_EOI):
        for suffix, tensor in get_format(name).quantize_weight(weight, amax=1.0).items():
            other = together[suffix][index]
            assert torch.equal(other.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(("name", "bits"), [("mxfp8", 8.25), ("mxfp4", 4.25)])
def test_sizes_are_those_of_the_format(name: str, bits: float) -> None:
    assert 8 * get_format(name).stored_bytes((64, 128), with_input=False) / (64 * 128) == bits


@pytest.mark.parametrize("name", ["mxfp8", "mxfp4"])
def test_a_width_that_is_no_multiple_of_32_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="width 48 is no multiple of 32"):
        get_format(name).quantize_weight(torch.ones(2, 48), amax=1.0)
