"""GPTQ: what is left of a weight makes up for the error of what is rounded."""

import pytest
import torch
from torch import Tensor

from harness.algorithms import SecondMoments, quantize_weights
from harness.algorithms.columns import distances
from harness.artifacts import PLAIN, Algorithm, Rounding, Scales
from harness.formats.nvfp4 import FORMAT, nearest, nearest_by_search
from tests.algorithms.test_scales import heavy, largest, of_inputs, values

GPTQ = Algorithm(rounding=Rounding.GPTQ)


def correlated(number: int, tokens: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    mixed = torch.randn(number, tokens, width, generator=generator)
    mixing = torch.randn(width, width, generator=generator) / width**0.5 + torch.eye(width)
    return torch.matmul(mixed, mixing)


def lost(weight_EOI: Tensor, found_EOI: Tensor, x_ENI: Tensor) -> Tensor:
    total: Tensor = ((found_EOI - weight_EOI) @ x_ENI.mT).square().sum()
    return total


@pytest.mark.parametrize("scales", list(Scales))
def test_the_output_loses_less_than_with_the_nearest_codes(scales: Scales) -> None:
    x, weight = correlated(2, 1024, 64), heavy(2, 32, 64)
    both = [
        quantize_weights(
            weight,
            Algorithm(scales=scales, rounding=rounding),
            amax=largest(weight),
            moments=of_inputs(x),
        )
        for rounding in (Rounding.NEAREST, Rounding.GPTQ)
    ]
    plain, made_up = (lost(weight, values(stored), x) for stored in both)
    assert made_up < 0.8 * plain


def test_without_correlation_there_is_nothing_to_make_up() -> None:
    weight = heavy(2, 16, 48)
    energy = torch.rand(48, generator=torch.Generator().manual_seed(6)) + 0.1
    moments = SecondMoments(torch.diag(energy).expand(2, 48, 48) * 512, torch.tensor([512, 512]))
    found = quantize_weights(weight, GPTQ, amax=largest(weight), moments=moments)
    plain = FORMAT.quantize_weights(weight, amax=largest(weight))
    assert torch.equal(values(found), values(plain))


def test_it_is_what_one_column_after_another_gives() -> None:
    """Beside the published algorithm, written out for the first row, in float64."""
    mixed = torch.randn(1, 256, 32, generator=torch.Generator().manual_seed(11))
    x = mixed + 0.1 * correlated(1, 256, 32)
    weight = torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(10))
    moments = of_inputs(x)
    stored = quantize_weights(weight, GPTQ, amax=largest(weight), moments=moments)
    steps = (stored["weight_scale"].float() * stored["weight_scale_2"]).double()
    step = steps.repeat_interleave(16, -1)[0, 0]
    inverse = torch.linalg.inv(moments.whole(damping=GPTQ.damping)[0].double())
    order = moments.sums[0].diagonal().argsort(descending=True).tolist()
    left, row = list(range(32)), weight[0, 0].double().clone()
    for at in order:
        rounded = float(nearest((row[at] / step[at]).float())) * step[at]
        index = left.index(at)
        error = (row[at] - rounded) / inverse[index, index]
        row[left] -= error * inverse[index]
        row[at] = rounded
        rest = [i for i in range(len(left)) if i != index]
        inverse -= torch.outer(inverse[:, index], inverse[index]) / inverse[index, index].clone()
        inverse = inverse[rest][:, rest]
        left.pop(index)
    assert float(distances(values(stored), weight).max()) <= 1.3  # so that it is done once
    assert torch.allclose(values(stored)[0, 0].double(), row, atol=1e-6)
    plain = values(FORMAT.quantize_weights(weight, amax=largest(weight)))[0, 0].double()
    assert not torch.allclose(plain, row, atol=1e-6)


def test_a_weight_is_never_changed_by_more_than_a_fifth() -> None:
    """Inputs of rank 2 leave all other directions free."""
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(1, 512, 2, generator=generator) @ torch.randn(2, 64, generator=generator)
    weight = torch.randn(1, 64, 64, generator=generator) * 0.02
    found = values(quantize_weights(weight, GPTQ, amax=largest(weight), moments=of_inputs(x)))
    assert (found - weight).norm() <= 0.2 * weight.norm()
    free = quantize_weights(
        weight,
        Algorithm(rounding=Rounding.GPTQ, damping=1e-6),
        amax=largest(weight),
        moments=of_inputs(x),
    )
    assert (values(free) - weight).norm() <= 0.2 * weight.norm()


def test_beside_enormous_features_a_weight_keeps_the_nearest_codes() -> None:
    """Some features have a million times the energy, as massive activations of models do."""
    generator = torch.Generator().manual_seed(13)
    x = torch.randn(1, 256, 8, generator=generator) @ torch.randn(8, 128, generator=generator)
    x *= 10 ** (torch.rand(128, generator=generator) * 6 - 3)
    weight = torch.randn(1, 64, 128, generator=generator) * 0.02
    found = values(quantize_weights(weight, GPTQ, amax=largest(weight), moments=of_inputs(x)))
    assert (found - weight).norm() <= 0.2 * weight.norm()


def test_an_expert_without_tokens_gets_the_nearest_codes() -> None:
    x, weight = correlated(2, 256, 32), heavy(2, 8, 32)
    sums = x.mT @ x
    sums[1] = 0
    moments = SecondMoments(sums, torch.tensor([256, 0]))
    found = quantize_weights(weight, GPTQ, amax=largest(weight), moments=moments)
    plain = FORMAT.quantize_weights(weight, amax=largest(weight))
    assert torch.equal(values(found)[1], values(plain)[1])
    assert not torch.equal(values(found)[0], values(plain)[0])


def test_few_tokens_bind_a_weight_to_what_it_was() -> None:
    x, weight = correlated(1, 4096, 64), heavy(1, 16, 64)
    few, many = (
        values(quantize_weights(weight, GPTQ, amax=largest(weight), moments=of_inputs(x[:, :n])))
        for n in (8, 4096)
    )
    plain = values(FORMAT.quantize_weights(weight, amax=largest(weight)))
    assert lost(weight, few, x) < lost(weight, plain, x) * 1.2
    assert lost(weight, many, x) < lost(weight, few, x)


def test_a_stack_is_quantized_as_each_weight_alone() -> None:
    x, weight = correlated(3, 256, 160), heavy(3, 16, 160)
    moments, amax = of_inputs(x), largest(weight)
    together = quantize_weights(weight, GPTQ, amax=amax, moments=moments)
    alone = quantize_weights(weight[1:2], GPTQ, amax=amax[1:2], moments=moments.part(slice(1, 2)))
    same = (alone["weight"][0] == together["weight"][1]).float().mean()
    assert same > 0.999  # sums of a batch may be taken in another order


def test_values_are_found_by_search_as_by_comparing() -> None:
    quarters = torch.arange(-32, 33) / 4
    bits = torch.randn(4096, generator=torch.Generator().manual_seed(12)) * 3
    for x in (quarters, bits, quarters.nextafter(torch.tensor(9.0))):
        assert torch.equal(nearest_by_search(x), nearest(x))


def test_kernels_are_prepared_while_a_model_is_built() -> None:
    """Another thread sets torch's default type meanwhile, for the whole process."""
    both = Algorithm(scales=Scales.LOCAL_HESSIAN, rounding=Rounding.GPTQ)
    weight = heavy(1, 8, 32)
    torch.set_default_dtype(torch.bfloat16)
    try:
        noise = SecondMoments.of_noise(1, 32, whole=True, device="cpu")
        quantize_weights(weight, both, amax=[1.0], moments=noise)
    finally:
        torch.set_default_dtype(torch.float32)


def test_plain_is_the_format_itself() -> None:
    weight = heavy(1, 8, 32)
    found = quantize_weights(weight, PLAIN, amax=largest(weight))
    plain = FORMAT.quantize_weights(weight, amax=largest(weight))
    assert all(torch.equal(found[k].float(), plain[k].float()) for k in plain)
