"""MXFP4 becomes NVFP4 without a second rounding, as far as E4M3 has the powers of two."""

import torch
from torch import Tensor

from harness.formats import get_format
from harness.formats.cast import cast_to_nvfp4, largest_exponent

VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def stored(exponents: Tensor) -> Tensor:
    """A random weight of MXFP4 with these exponents, [O, B]."""
    generator = torch.Generator().manual_seed(0)
    shape = (*exponents.shape, 32)
    codes = torch.randint(0, 8, shape, generator=generator)
    signs = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    values = VALUES[codes] * signs * torch.exp2(exponents.float() - 127)[..., None]
    return values.flatten(-2).bfloat16()


def decoded(tensors: dict[str, Tensor]) -> Tensor:
    return get_format("nvfp4").dequantize_weight(tensors, dtype=torch.float32)


def test_every_value_stays_what_it_was() -> None:
    exponents = 104 + torch.arange(18).reshape(3, 6).to(torch.uint8)
    weight = stored(exponents)
    made = cast_to_nvfp4(weight, exponents, largest_exponent(exponents))
    assert torch.equal(decoded(dict(made)), weight.float())


def test_a_layer_beside_a_larger_one_stays_what_it_was() -> None:
    exponents = torch.full((2, 4), 118, dtype=torch.uint8)
    weight = stored(exponents)
    made = cast_to_nvfp4(weight, exponents, largest_exponent(exponents) + 5)
    assert torch.equal(decoded(dict(made)), weight.float())


def test_a_block_that_is_far_smaller_is_rounded_and_not_lost() -> None:
    exponents = torch.tensor([[120, 100]], dtype=torch.uint8)
    weight = stored(exponents)
    made = decoded(dict(cast_to_nvfp4(weight, exponents, largest_exponent(exponents))))
    assert torch.equal(made[:, :32], weight[:, :32].float())
    small = weight[:, 32:].float()
    assert (made[:, 32:] - small).abs().max() <= small.abs().max()
    assert made[:, 32:].any()


def test_blocks_of_zeros_do_not_count() -> None:
    exponents = torch.tensor([[0, 110]], dtype=torch.uint8)
    assert largest_exponent(exponents) == -17
    assert largest_exponent(torch.zeros(2, 2, dtype=torch.uint8)) == 0
