"""FP8 weights, inputs, keys and values against a list of every E4M3 value."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from harness.formats import get_format
from harness.formats.kv import kv_scale, qdq_kv

E4M3 = tuple(
    (m / 8) * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)
    for e in range(16)
    for m in range(8)
)[:127]
FP8 = get_format("fp8")
f32 = np.float32
quick = settings(deadline=None, max_examples=150, derandomize=True)
shapes = st.tuples(st.integers(1, 5), st.integers(1, 20))
weights = shapes.flatmap(
    lambda s: hnp.arrays(
        f32, s, elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=True)
    )
)


def plain_code(x: float) -> int:
    """Byte of the nearest E4M3 value; ties to the even code; saturates."""
    best = 0
    for code in range(1, 127):
        gain = abs(E4M3[best] - abs(x)) - abs(E4M3[code] - abs(x))
        if gain > 0 or (gain == 0 and code % 2 == 0):
            best = code
    return best + (128 if np.signbit(x) else 0)


@quick
@given(weight=weights, spread=st.sampled_from([1.0, 2.0, 0.5]))
def test_every_code_is_rounded_once_from_the_float32_quotient(
    weight: NDArray[f32], spread: float
) -> None:
    amax = float(np.max(np.abs(weight))) * spread
    with np.errstate(all="ignore"):
        scale = max(f32(amax) / f32(448.0), f32(2.0**-149)) if amax else f32(1.0)
        codes = [[plain_code(float(f32(w) / scale)) for w in row] for row in weight]
    stored = FP8.quantize_weight(torch.from_numpy(weight), amax=amax)
    assert stored["weight_scale"].item() == scale
    assert stored["weight"].view(torch.uint8).tolist() == codes


def test_single_rounding_beats_the_double_rounding_of_a_bfloat16_quotient() -> None:
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(1)).bfloat16()
    amax = weight.abs().max().item()
    stored = FP8.quantize_weight(weight, amax=amax)
    twice = (weight.float() / stored["weight_scale"]).bfloat16().to(torch.float8_e4m3fn)
    differing = (twice.view(torch.uint8) != stored["weight"].view(torch.uint8)).float().mean()
    ours = (FP8.dequantize_weight(stored, dtype=torch.float32) - weight).square().mean()
    theirs = (twice.float() * stored["weight_scale"] - weight).square().mean()
    assert 0.01 < differing < 0.05
    assert ours < theirs


def test_weights_beyond_the_amax_saturate_and_never_become_nan() -> None:
    stored = FP8.quantize_weight(torch.tensor([[1.0, 500.0, -1e9]]), amax=448.0)
    assert stored["weight"].float().tolist() == [[1.0, 448.0, -448.0]]


def test_a_weight_of_zeros_gets_scale_one() -> None:
    stored = FP8.quantize_weight(torch.zeros(2, 3), amax=0.0)
    assert stored["weight_scale"].item() == 1.0
    assert (FP8.dequantize_weight(stored, dtype=torch.bfloat16) == 0).all()


def test_any_width_is_stored() -> None:
    assert FP8.block is None
    assert FP8.quantize_weight(torch.ones(3, 7), amax=1.0)["weight"].shape == (3, 7)
    assert FP8.stored_bytes((3, 7), with_input=True) == 21 + 8


@quick
@given(
    x=shapes.flatmap(lambda s: hnp.arrays(f32, s, elements=st.floats(-1e5, 1e5, width=32))),
    scale=st.sampled_from([1e-4, 0.013, 1.0, 31.7]),
)
def test_inputs_are_multiplied_by_the_reciprocal_and_saturate(
    x: NDArray[f32], scale: float
) -> None:
    with np.errstate(all="ignore"):
        inverse = f32(1.0) / f32(scale)
        codes = [[plain_code(float(f32(v) * inverse)) for v in row] for row in x]
        expected = [
            [f32(E4M3[c & 127] * (-1 if c & 128 else 1)) * f32(scale) for c in row] for row in codes
        ]
    got = FP8.qdq_input(torch.from_numpy(x), input_scale=torch.tensor(scale))
    assert got.tolist() == np.array(expected, dtype=f32).tolist()


@quick
@given(
    x=shapes.flatmap(lambda s: hnp.arrays(f32, s, elements=st.floats(-1e5, 1e5, width=32))),
    scale=st.sampled_from([1e-4, 0.013, 1.0, 31.7]),
)
def test_keys_and_values_are_divided_by_their_scale(x: NDArray[f32], scale: float) -> None:
    with np.errstate(all="ignore"):
        codes = [[plain_code(float(f32(v) / f32(scale))) for v in row] for row in x]
        expected = [
            [f32(E4M3[c & 127] * (-1 if c & 128 else 1)) * f32(scale) for c in row] for row in codes
        ]
    got = qdq_kv(torch.from_numpy(x), scale=torch.tensor(scale))
    assert got.tolist() == np.array(expected, dtype=f32).tolist()


@pytest.mark.parametrize("amax", [1e-30, 0.37, 448.0, 3e38])
def test_scales_are_amax_over_448(amax: float) -> None:
    expected = f32(amax) / f32(448.0)
    assert FP8.input_scale(amax).item() == expected
    assert kv_scale(amax).item() == expected


def test_what_was_always_zero_gets_scale_one() -> None:
    assert FP8.input_scale(0.0).item() == 1.0
    assert kv_scale(0.0).item() == 1.0
