"""GPTAQ: weights aim at the unquantized model's outputs, from inputs of a quantized one."""

import pytest
import torch
from torch import Tensor

from harness.algorithms import SecondMoments, gptaq, quantize_weights
from harness.artifacts import Algorithm, Rounding, Scales
from harness.formats.nvfp4 import FORMAT
from tests.algorithms.test_gptq import correlated
from tests.algorithms.test_scales import heavy, largest, values

GPTAQ = Algorithm(rounding=Rounding.GPTAQ)


def behind(y_ENI: Tensor) -> Tensor:
    """Return inputs as quantized layers leave them: features mixed, then rounded to E2M1."""
    x_ENI = 0.9 * y_ENI + 0.15 * y_ENI.roll(1, dims=-1)
    return FORMAT.qdq_input(x_ENI, input_scale=FORMAT.input_scale(float(x_ENI.abs().max())))


def of_both(x_ENI: Tensor, y_ENI: Tensor) -> SecondMoments:
    tokens_E = torch.full((len(x_ENI),), x_ENI.shape[1])
    return SecondMoments(x_ENI.mT @ x_ENI, tokens_E, y_ENI.mT @ x_ENI)


def missed(weight_EOI: Tensor, found_EOI: Tensor, x_ENI: Tensor, y_ENI: Tensor) -> float:
    return float((found_EOI @ x_ENI.mT - weight_EOI @ y_ENI.mT).square().sum())


@pytest.mark.parametrize("scales", list(Scales))
def test_the_output_is_nearer_to_the_unquantized_model_s_than_with_gptq(scales: Scales) -> None:
    y, weight = correlated(2, 2048, 64), heavy(2, 32, 64)
    x = behind(y)
    aimed, made_up = (
        quantize_weights(
            weight,
            Algorithm(scales=scales, rounding=rounding),
            amax=largest(weight),
            moments=of_both(x, y),
        )
        for rounding in (Rounding.GPTAQ, Rounding.GPTQ)
    )
    assert missed(weight, values(aimed), x, y) < 0.6 * missed(weight, values(made_up), x, y)


def test_it_aims_at_the_bound_least_squares_as_large_as_the_weight() -> None:
    y, weight = correlated(1, 512, 32), torch.randn(1, 8, 32)
    x = 0.95 * y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(4))
    moments = of_both(x, y)
    share = 0.5 + 4 * 32 / 512
    bound = moments.whole(damping=share)[0].double() - moments.sums[0].double() / 512
    root = torch.linalg.cholesky(bound).mT * 512**0.5
    plain = weight[0].double().mT
    left = torch.cat([x[0].double(), root])
    right = torch.cat([y[0].double() @ plain, root @ plain])
    wanted = torch.linalg.lstsq(left, right).solution
    assert (wanted - plain).norm() > 0.01 * plain.norm()
    wanted *= plain.square().sum(0) / (wanted * plain).sum(0)  # a column is a row of the weight
    assert torch.allclose(gptaq.aimed(weight, moments)[0].double(), wanted.mT, atol=1e-5)


def test_where_nothing_was_lost_it_is_gptq() -> None:
    y, weight = correlated(2, 512, 48), heavy(2, 16, 48)
    found = [
        quantize_weights(
            weight,
            Algorithm(rounding=rounding),
            amax=largest(weight),
            moments=of_both(y, y),
        )
        for rounding in (Rounding.GPTAQ, Rounding.GPTQ)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_weight_without_tokens_aims_at_nothing() -> None:
    y, weight = correlated(2, 512, 48), heavy(2, 16, 48)
    moments = of_both(behind(y), y)
    nothing = SecondMoments(
        moments.sums * torch.tensor([1.0, 0.0])[:, None, None],
        torch.tensor([512, 0]),
        None if moments.cross is None else moments.cross * torch.tensor([1.0, 0.0])[:, None, None],
    )
    found = gptaq.aimed(weight, nothing)
    assert torch.equal(found[1], weight[1])
    assert not torch.equal(found[0], weight[0])


def test_inputs_that_have_nothing_to_do_with_each_other_change_little() -> None:
    """As behind layers that were damaged: least squares alone would make nothing of a weight."""
    y, weight = correlated(1, 512, 48), heavy(1, 16, 48)
    x = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    found = gptaq.aimed(weight, of_both(x, y))
    assert (found - weight).norm() <= 0.15 * weight.norm()


def test_a_row_that_would_become_another_is_left_as_it_was() -> None:
    """Along a direction that quantized layers turn into noise."""
    y, weight = correlated(1, 2048, 48), heavy(1, 16, 48)
    x = y.clone()
    x[..., 0] = torch.randn(y.shape[1], generator=torch.Generator().manual_seed(2))
    weight[0, 0] = 0
    weight[0, 0, 0] = 1
    found = gptaq.aimed(weight, of_both(x, y))
    assert torch.equal(found[0, 0], weight[0, 0])
    assert not torch.equal(found[0, 1], weight[0, 1])


def test_weights_of_one_stack_are_made_as_each_alone() -> None:
    y, weight = correlated(3, 512, 48), heavy(3, 16, 48)
    moments = of_both(behind(y), y)
    whole = quantize_weights(weight, GPTAQ, amax=largest(weight), moments=moments)
    for at in range(3):
        part = slice(at, at + 1)
        alone = quantize_weights(
            weight[part], GPTAQ, amax=largest(weight)[part], moments=moments.part(part)
        )
        same = (values(alone) == values(whole)[part]).float().mean()
        assert same > 0.99  # float32 sums of other shapes
