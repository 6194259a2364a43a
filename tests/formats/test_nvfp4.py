"""NVFP4 against a plain implementation that takes one value at a time.

The plain one knows the formats only as lists of values: nearest value, ties to the even code.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import Tensor

from harness.formats import get_format

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E4M3 = tuple(
    (m / 8) * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)
    for e in range(16)
    for m in range(8)
)[:127]
NVFP4 = get_format("nvfp4")
f32 = np.float32
quick = settings(deadline=None, max_examples=150, derandomize=True)


def nearest_code(magnitude: float, values: tuple[float, ...]) -> int:
    """Code of the nearest value; a tie goes to the even code; beyond the last: the last."""
    best = 0
    for code in range(1, len(values)):
        gain = abs(values[best] - magnitude) - abs(values[code] - magnitude)
        if gain > 0 or (gain == 0 and code % 2 == 0):
            best = code
    return best


def plain_quantize(
    weight: NDArray[f32], amax: float
) -> tuple[list[list[int]], list[list[int]], f32]:
    """Return nibbles, block-scale codes and the global scale, value by value in float32."""
    with np.errstate(all="ignore"):
        scale_2 = f32(amax) / f32(2688.0) if amax else f32(1.0)
        nibbles: list[list[int]] = []
        scales: list[list[int]] = []
        for row in weight:
            nibbles.append([])
            scales.append([])
            for start in range(0, len(row), 16):
                block = row[start : start + 16]
                scale = f32(np.max(np.abs(block))) / (f32(6.0) * scale_2)
                if scale == 0:
                    scale = f32(1.0)
                code = max(1, nearest_code(float(scale), E4M3))
                step = f32(E4M3[code]) * scale_2
                scales[-1].append(code)
                for value in block:
                    x = f32(value) / step
                    nibbles[-1].append(nearest_code(abs(float(x)), E2M1) + (8 if x < 0 else 0))
        return nibbles, scales, scale_2


def as_bfloat16(bits: NDArray[np.uint16]) -> NDArray[f32]:
    """Every finite bfloat16 by its bits; infinities and NaN become zero."""
    finite = np.where((bits & 0x7F80) == 0x7F80, bits & 0x8000, bits)
    return (finite.astype(np.uint32) << 16).view(f32)


def unpacked(packed: Tensor) -> list[list[int]]:
    return [[n for byte in row for n in (byte & 15, byte >> 4)] for row in packed.tolist()]


shapes = st.tuples(st.integers(1, 4), st.sampled_from([16, 32, 48]))
any_weight = shapes.flatmap(lambda s: hnp.arrays(np.uint16, s)).map(as_bfloat16)
# Small whole numbers times a power of two: their quotients often lie exactly on a bound.
tie_weight = shapes.flatmap(
    lambda s: hnp.arrays(np.int32, s, elements=st.integers(-2688, 2688)).map(
        lambda a: np.round(a / 28).astype(f32) * 28
    )
)
denormals = shapes.flatmap(lambda s: hnp.arrays(np.uint16, s, elements=st.integers(0, 0x0100))).map(
    as_bfloat16
)


@quick
@given(weight=st.one_of(any_weight, tie_weight, denormals), spread=st.sampled_from([1.0, 3.0, 1e4]))
def test_every_code_and_scale_is_that_of_the_plain_implementation(
    weight: NDArray[f32], spread: float
) -> None:
    amax = min(float(np.max(np.abs(weight))) * spread, float(np.finfo(f32).max))
    exact = torch.from_numpy(weight)
    half = exact.bfloat16()
    stored = NVFP4.quantize_weight(half if half.equal(exact) else exact, amax=amax)
    nibbles, scales, scale_2 = plain_quantize(weight, amax)
    assert unpacked(stored["weight"]) == nibbles
    assert stored["weight_scale"].view(torch.uint8).tolist() == scales
    assert stored["weight_scale_2"].item() == scale_2


@quick
@given(weight=any_weight)
def test_dequantized_weights_are_code_times_scale_times_global_scale(weight: NDArray[f32]) -> None:
    amax = float(np.max(np.abs(weight)))
    stored = NVFP4.quantize_weight(torch.from_numpy(weight), amax=amax)
    nibbles, scales, scale_2 = plain_quantize(weight, amax)
    with np.errstate(all="ignore"):
        expected = [
            [
                f32(math.copysign(E2M1[n & 7], -1 if n & 8 else 1))
                * (f32(E4M3[scales[row][column // 16]]) * scale_2)
                for column, n in enumerate(codes)
            ]
            for row, codes in enumerate(nibbles)
        ]
    got = NVFP4.dequantize_weight(stored, dtype=torch.float32)
    assert got.tolist() == np.array(expected, dtype=f32).tolist()


@quick
@given(weight=any_weight)
def test_the_error_is_at_most_half_a_step_of_the_block(weight: NDArray[f32]) -> None:
    amax = float(np.max(np.abs(weight)))
    exact = torch.from_numpy(weight).double()
    stored = NVFP4.quantize_weight(torch.from_numpy(weight), amax=amax)
    got = NVFP4.dequantize_weight(stored, dtype=torch.float64)
    step = (stored["weight_scale"].double() * stored["weight_scale_2"].double()).repeat_interleave(
        16, dim=1
    )
    # Widest gap between codes is 2 steps; the scale itself may be rounded down by 1/16,
    # which cuts off 6 / 16 of a step at the top.
    assert ((got - exact).abs() <= step * 1.001 + 1e-44).all()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("value", "code"),
    [(0.25, 0), (0.75, 2), (1.25, 2), (1.75, 4), (2.5, 4), (3.5, 6), (5.0, 6), (6.0, 7)],
)
def test_a_value_on_a_bound_gets_the_even_code(value: float, code: int, sign: int) -> None:
    weight = torch.zeros(1, 16)
    weight[0, 0] = 2688.0
    weight[0, 1] = sign * value * 448
    stored = NVFP4.quantize_weight(weight.bfloat16(), amax=2688.0)
    assert stored["weight_scale_2"].item() == 1.0
    assert unpacked(stored["weight"])[0][:2] == [7, code + (8 if sign < 0 else 0)]


@pytest.mark.parametrize(("value", "below"), [(0.75, 1), (1.75, 3), (3.5, 5)])
def test_a_value_just_below_an_upper_bound_goes_down(value: float, below: int) -> None:
    weight = torch.zeros(1, 16)
    weight[0, 0] = 6.0
    weight[0, 1] = torch.nextafter(torch.tensor(value), torch.tensor(0.0))
    stored = NVFP4.quantize_weight(weight, amax=2688.0)
    assert stored["weight_scale"].item() == 1.0
    assert unpacked(stored["weight"])[0][1] == below


def test_negative_zero_is_code_zero_and_a_tiny_negative_is_code_eight() -> None:
    weight = torch.zeros(1, 16)
    weight[0, :4] = torch.tensor([6.0, -0.0, -0.001, 0.001])
    stored = NVFP4.quantize_weight(weight, amax=6.0)
    assert unpacked(stored["weight"])[0][:4] == [7, 0, 8, 0]


def test_the_even_column_lies_in_the_low_half_of_a_byte() -> None:
    weight = torch.zeros(1, 16)
    weight[0, 0], weight[0, 1] = 6.0, 1.0
    assert NVFP4.quantize_weight(weight, amax=6.0)["weight"][0, 0].item() == (2 << 4) | 7


def test_a_weight_of_zeros_stays_zero_with_positive_scales() -> None:
    stored = NVFP4.quantize_weight(torch.zeros(2, 32), amax=0.0)
    assert (NVFP4.dequantize_weight(stored, dtype=torch.float32) == 0).all()
    assert stored["weight_scale_2"].item() > 0
    assert (stored["weight_scale"].float() > 0).all()


def test_float32_denormals_never_become_the_largest_code() -> None:
    weight = torch.full((1, 16), 2.0**-149)
    weight[0, 1] = 0.0
    stored = NVFP4.quantize_weight(weight, amax=2.0**-149)
    assert stored["weight_scale_2"].item() > 0
    assert NVFP4.dequantize_weight(stored, dtype=torch.float32).abs().max().item() < 1e-40


@pytest.mark.parametrize("amax", [math.nan, math.inf, -1.0])
def test_an_amax_that_is_no_magnitude_is_refused(amax: float) -> None:
    with pytest.raises(ValueError, match="no largest absolute value"):
        NVFP4.quantize_weight(torch.ones(1, 16), amax=amax)


def test_a_width_that_is_no_multiple_of_16_is_refused() -> None:
    with pytest.raises(ValueError, match="width 24 is no multiple of 16"):
        NVFP4.quantize_weight(torch.ones(1, 24), amax=1.0)


def test_the_input_scale_is_amax_over_2688_and_that_of_6_for_a_dead_input() -> None:
    assert NVFP4.input_scale(3.25).item() == f32(3.25) / f32(2688.0)
    assert NVFP4.input_scale(0.0).item() == f32(6.0) / f32(2688.0)
    assert NVFP4.input_scale(3.25).shape == ()


def plain_qdq(x: NDArray[f32], input_scale: float) -> list[list[float]]:
    """W4A4 emulation, value by value: the reciprocal global scale, then block scales in E4M3."""
    with np.errstate(all="ignore"):
        gain = f32(1.0) / f32(input_scale)
        out: list[list[float]] = []
        for row in x:
            out.append([])
            for start in range(0, len(row), 16):
                block = row[start : start + 16]
                wanted = gain * (f32(np.max(np.abs(block))) * f32(1 / 6))
                scale = f32(E4M3[nearest_code(float(wanted), E4M3)])
                inverse = f32(1e-8) if scale == 0 else f32(1.0) / (scale * (f32(1.0) / gain))
                for value in block:
                    code = nearest_code(min(abs(float(f32(value) * inverse)), 6.0), E2M1)
                    out[-1].append(float(np.copysign(f32(E2M1[code]), value) * (scale / gain)))
        return out


inputs = shapes.flatmap(
    lambda s: hnp.arrays(f32, s, elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False))
)


@quick
@given(x=inputs, input_scale=st.sampled_from([1e-6, 1e-3, 0.0174, 1.0, 7.3]))
def test_inputs_are_rounded_as_the_plain_emulation_does(
    x: NDArray[f32], input_scale: float
) -> None:
    got = NVFP4.qdq_input(torch.from_numpy(x), input_scale=torch.tensor(input_scale))
    assert got.tolist() == np.array(plain_qdq(x, input_scale), dtype=f32).tolist()


def test_inputs_keep_their_shape_and_type() -> None:
    x = torch.randn(2, 3, 32).bfloat16()
    got = NVFP4.qdq_input(x, input_scale=torch.tensor(0.01))
    assert got.shape == x.shape
    assert got.dtype == torch.bfloat16


def test_an_input_below_the_range_of_block_scales_becomes_zero() -> None:
    got = NVFP4.qdq_input(torch.full((1, 16), 1e-6), input_scale=torch.tensor(1.0))
    assert (got == 0).all()


def test_stored_bytes_count_every_tensor() -> None:
    stored = NVFP4.quantize_weight(torch.randn(6, 48), amax=5.0)
    num_bytes = sum(t.numel() * t.element_size() for t in stored.values())
    assert NVFP4.stored_bytes((6, 48), with_input=False) == num_bytes
    assert NVFP4.stored_bytes((6, 48), with_input=True) == num_bytes + 4
    assert tuple(stored) == NVFP4.required_suffixes(with_input=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["nvfp4", "fp8"])
def test_a_gpu_gives_the_bytes_that_a_cpu_gives(name: str) -> None:
    chosen = get_format(name)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(512, 1024, generator=generator).pow(3).bfloat16()
    amax = weight.abs().max().item()
    on_cpu = chosen.quantize_weight(weight, amax=amax)
    on_gpu = chosen.quantize_weight(weight.cuda(), amax=amax)
    for suffix, tensor in on_cpu.items():
        assert torch.equal(
            tensor.reshape(-1).view(torch.uint8), on_gpu[suffix].cpu().reshape(-1).view(torch.uint8)
        )
    scale = chosen.input_scale(amax)
    rounded = chosen.qdq_input(weight, input_scale=scale)
    assert torch.equal(rounded, chosen.qdq_input(weight.cuda(), input_scale=scale).cpu())
    decoded = chosen.dequantize_weight(on_cpu, dtype=torch.bfloat16)
    assert torch.equal(decoded, chosen.dequantize_weight(on_gpu, dtype=torch.bfloat16).cpu())
