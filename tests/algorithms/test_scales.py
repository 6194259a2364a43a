"""Scales of blocks: by squared error, four over six, and by what inputs make of an error."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from harness.algorithms import SecondMoments, quantize_weights
from harness.artifacts import Algorithm, Rounding, Scales
from harness.formats.e4m3 import E4M3_MAX
from harness.formats.nvfp4 import BLOCK, FORMAT, global_scales, nearest

MSE = Algorithm(scales=Scales.MSE)
FOUR_OVER_SIX = Algorithm(scales=Scales.FOUR_OVER_SIX)
LOCAL = Algorithm(scales=Scales.LOCAL_HESSIAN)


def heavy(*shape: int) -> Tensor:
    """Return weights with outliers, as trained ones have."""
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(*shape, generator=generator)
    return normal * torch.rand(*shape, generator=generator).pow(3) * 0.1


def largest(weight_EOI: Tensor) -> list[float]:
    return [float(one.abs().max()) for one in weight_EOI]


def values(tensors: Mapping[str, Tensor]) -> Tensor:
    each = range(len(tensors["weight"]))
    return torch.stack(
        [
            FORMAT.dequantize_weight({k: v[i] for k, v in tensors.items()}, dtype=torch.float32)
            for i in each
        ]
    )


def block_errors(weight_EOI: Tensor, found_EOI: Tensor) -> Tensor:
    return blocks_of((found_EOI - weight_EOI).square()).sum(-1)


def blocks_of(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:-1], -1, BLOCK)


def of_inputs(x_ENI: Tensor) -> SecondMoments:
    tokens = torch.full((len(x_ENI),), x_ENI.shape[1])
    return SecondMoments(x_ENI.mT @ x_ENI, tokens)


def test_no_block_loses_more_than_with_the_scale_of_its_largest_value() -> None:
    weight = heavy(2, 32, 64)
    plain = values(FORMAT.quantize_weights(weight, amax=largest(weight)))
    found = values(quantize_weights(weight, MSE, amax=largest(weight)))
    assert (block_errors(weight, found) <= block_errors(weight, plain)).all()
    assert block_errors(weight, found).sum() < 0.95 * block_errors(weight, plain).sum()


def test_four_over_six_loses_less_than_six_alone() -> None:
    weight = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(9))
    plain = values(FORMAT.quantize_weights(weight, amax=largest(weight)))
    found = values(quantize_weights(weight, FOUR_OVER_SIX, amax=largest(weight)))
    assert block_errors(weight, found).sum() < 0.95 * block_errors(weight, plain).sum()


def test_the_sweep_finds_what_all_126_scales_would() -> None:
    weight = heavy(1, 64, 128)
    amax = largest(weight)
    found = quantize_weights(weight, MSE, amax=amax)
    codes = torch.arange(1, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    blocks = blocks_of(weight).unsqueeze(-2)  # [1, O, B, 1, k]
    steps = (codes * global_scales(amax)[1])[:, None]
    errors = (nearest(blocks / steps) * steps - blocks).square().sum(-1)
    assert torch.equal(codes[errors.argmin(-1)], found["weight_scale"].float())


def test_a_block_between_four_and_six_is_mapped_to_four() -> None:
    # 4 and 3 and 2 are codes where the largest is 4; where it is 6 they are 6, 4.5 and 3.
    block = torch.tensor([4.0, 3.0, 2.0, 3.0] * 4)
    weight = torch.stack([block, block.new_tensor([6.0, 4.0, 3.0, 2.0] * 4) * 2])[None]
    stored = quantize_weights(weight, FOUR_OVER_SIX, amax=[12.0])
    assert torch.allclose(values(stored), weight)
    assert float(stored["weight_scale_2"]) == pytest.approx(12 / (6 * 256))


def test_inputs_that_are_all_alike_leave_the_squared_error() -> None:
    weight = heavy(2, 16, 32)
    unit = SecondMoments(torch.eye(32).expand(2, 32, 32) * 1e6, torch.tensor([10**6, 10**6]))
    by_inputs = quantize_weights(weight, LOCAL, amax=largest(weight), moments=unit)
    by_weights = quantize_weights(weight, MSE, amax=largest(weight))
    assert torch.equal(by_inputs["weight"], by_weights["weight"])


def test_a_feature_with_most_of_the_energy_is_held_best() -> None:
    weight = heavy(1, 64, 16)
    energy = torch.ones(16)
    energy[3] = 1e4
    moments = SecondMoments(torch.diag(energy)[None] * 4096, torch.tensor([4096]))
    found = values(quantize_weights(weight, LOCAL, amax=largest(weight), moments=moments))
    plain = values(quantize_weights(weight, MSE, amax=largest(weight)))
    lost, before = ((x - weight)[..., 3].square().sum() for x in (found, plain))
    assert lost < before / 4


def test_the_output_loses_less_than_by_squared_error() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 512, 64, generator=generator) * torch.rand(64, generator=generator) * 4
    weight = heavy(2, 32, 64)
    moments = of_inputs(x)
    lost = [
        ((values(stored) - weight) @ x.mT).square().sum()
        for stored in (
            quantize_weights(weight, LOCAL, amax=largest(weight), moments=moments),
            quantize_weights(weight, MSE, amax=largest(weight)),
        )
    ]
    assert lost[0] < 0.9 * lost[1]


def test_moments_of_blocks_and_of_whole_inputs_choose_the_same_scales() -> None:
    x = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(2))
    whole = of_inputs(x)
    blocks = blocks_of(x).transpose(1, 2)
    alone = SecondMoments(blocks.mT @ blocks, whole.tokens_E)
    weight = heavy(1, 8, 32)
    found = [
        quantize_weights(weight, LOCAL, amax=largest(weight), moments=one)["weight_scale"].float()
        for one in (whole, alone)
    ]
    assert torch.equal(*found)


def test_an_expert_without_tokens_gets_the_squared_error() -> None:
    weight = heavy(1, 8, 32)
    nothing = SecondMoments(torch.zeros(1, 32, 32), torch.tensor([0]))
    found = quantize_weights(weight, LOCAL, amax=largest(weight), moments=nothing)
    expected = quantize_weights(weight, MSE, amax=largest(weight))
    assert torch.equal(found["weight"], expected["weight"])


@pytest.mark.parametrize("scales", list(Scales))
def test_zeros_stay_zeros_with_scale_one(scales: Scales) -> None:
    weight = heavy(1, 4, 32)
    weight[:, 1] = 0
    moments = of_inputs(torch.ones(1, 4, 32))
    algorithm = Algorithm(scales=scales)
    stored = quantize_weights(weight, algorithm, amax=largest(weight), moments=moments)
    assert not values(stored)[:, 1].any()
    assert (stored["weight_scale"][:, 1].float() == 1).all()


@pytest.mark.parametrize("scales", list(Scales))
def test_a_stack_is_quantized_as_each_weight_alone(scales: Scales) -> None:
    weight = heavy(3, 16, 64)
    x = torch.randn(3, 96, 64, generator=torch.Generator().manual_seed(3))
    moments, amax = of_inputs(x), largest(weight)
    algorithm = Algorithm(scales=scales)
    together = quantize_weights(weight, algorithm, amax=amax, moments=moments)
    for i in range(3):
        part = slice(i, i + 1)
        alone = quantize_weights(
            weight[part], algorithm, amax=amax[part], moments=moments.part(part)
        )
        assert torch.equal(alone["weight"], together["weight"][part])


@pytest.mark.parametrize("scales", [Scales.MSE, Scales.FOUR_OVER_SIX, Scales.LOCAL_HESSIAN])
def test_scales_are_numbers_that_engines_take(scales: Scales) -> None:
    weight = heavy(1, 16, 64)
    moments = of_inputs(torch.randn(1, 8, 64, generator=torch.Generator().manual_seed(4)))
    algorithm = Algorithm(scales=scales)
    found = quantize_weights(weight, algorithm, amax=largest(weight), moments=moments)
    scale = found["weight_scale"].float()
    assert (scale > 0).all()
    assert (scale <= E4M3_MAX).all()


@pytest.mark.parametrize(
    "algorithm", [LOCAL, Algorithm(rounding=Rounding.GPTQ)], ids=["local", "gptq"]
)
def test_what_was_not_measured_is_never_made_up(algorithm: Algorithm) -> None:
    weight = heavy(1, 4, 32)
    with pytest.raises(ValueError, match="nothing was measured"):
        quantize_weights(weight, algorithm, amax=largest(weight))
