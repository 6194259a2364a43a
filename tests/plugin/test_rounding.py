"""Rounding beside the formats and beside a plain search for the nearest value."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.formats import get_format
from harness.plugin.harness_vllm.rounding import qdq_nvfp4, quantize_fp8, round_e2m1

E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
EVEN = [0.0, 1.0, 2.0, 4.0]
"""Values whose code is even: ties go to them."""


def nearest(value: float) -> float:
    size = abs(value)
    found = min(E2M1, key=lambda known: (abs(known - size), known not in EVEN))
    return -found if value < 0 else found


@given(st.floats(-6, 6, width=32))
def test_a_value_goes_to_the_nearest_code(value: float) -> None:
    assert round_e2m1(torch.tensor(value)).item() == nearest(value)


@pytest.mark.parametrize("tie", [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
def test_a_tie_goes_to_the_even_code(tie: float) -> None:
    assert round_e2m1(torch.tensor([tie, -tie])).tolist() == [nearest(tie), -nearest(tie)]


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 256, generator=generator) * torch.logspace(-4, 1, 256)[:, None]
    x[3, :16] = 0
    return x.to(torch.bfloat16)


@pytest.mark.parametrize("scale", [1e-4, 3e-3, 0.5])
def test_nvfp4_equals_the_format(scale: float) -> None:
    x, input_scale = inputs(), torch.tensor(scale)
    ours = qdq_nvfp4(x, 1 / input_scale)
    theirs = get_format("nvfp4").qdq_input(x, input_scale=input_scale)
    assert ours.dtype == x.dtype
    assert torch.equal(ours, theirs)


def test_nvfp4_of_a_missing_scale_is_missing() -> None:
    assert qdq_nvfp4(inputs(), torch.tensor(float("nan"))).isnan().all()


def test_fp8_equals_the_format() -> None:
    x, scale = inputs(), torch.tensor(0.011)
    ours = (quantize_fp8(x, scale).float() * scale).to(x.dtype)
    assert torch.equal(ours, get_format("fp8").qdq_input(x, input_scale=scale))


def test_fp8_saturates() -> None:
    codes = quantize_fp8(torch.tensor([1e9, -1e9, 0.0]), torch.tensor(1.0))
    assert codes.float().tolist() == [448.0, -448.0, 0.0]
