"""FP8 with a scale a row, a token, or a block of 128 x 128, against plain arithmetic."""

import pytest
import torch
from torch import Tensor

from harness.formats import get_format, stored_format

CHANNEL, TOKEN, BLOCK = (get_format(f"fp8_{kind}") for kind in ("channel", "token", "block"))


def weights(rows: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(rows, width, generator=generator).pow(3).bfloat16()
    weight[0] = 0
    return weight


def rounded(values: Tensor) -> Tensor:
    return values.clamp(-448, 448).to(torch.float8_e4m3fn)


def is_same(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def test_each_row_has_a_scale() -> None:
    weight = weights(6, 20)
    stored = CHANNEL.quantize_weight(weight, amax=99.0)
    scale = weight.float().abs().amax(dim=1) / 448
    scale[0] = 1.0  # a row of zeros stays zero
    assert torch.equal(stored["weight_scale"], scale)
    assert is_same(stored["weight"], rounded(weight.float() / scale[:, None]))
    decoded = CHANNEL.dequantize_weight(stored, dtype=torch.float32)
    assert torch.equal(decoded, stored["weight"].float() * scale[:, None])


def test_each_token_has_a_scale_of_its_own() -> None:
    x = weights(4, 24)
    scale = (x.float().abs().amax(dim=1, keepdim=True) / 448).clamp(min=1 / (448 * 512))
    expected = (rounded(x.float() * scale.reciprocal()).float() * scale).to(x.dtype)
    assert torch.equal(TOKEN.qdq_input(x, input_scale=None), expected)


@pytest.mark.parametrize("shape", [(256, 384), (130, 260), (128, 300), (64, 256)])
def test_each_block_has_a_scale(shape: tuple[int, int]) -> None:
    weight = weights(*shape)
    weight[:128, :128] = 0
    stored = BLOCK.quantize_weight(weight, amax=99.0)
    rows, columns = -(-shape[0] // 128), -(-shape[1] // 128)
    assert stored["weight_scale"].shape == (rows, 1, columns, 1)
    for row in range(rows):
        for column in range(columns):
            where = slice(128 * row, 128 * row + 128), slice(128 * column, 128 * column + 128)
            amax = weight[where].float().abs().max()
            scale = amax / 448 if amax > 0 else torch.tensor(1.0)
            assert stored["weight_scale"][row, 0, column, 0] == scale
            assert is_same(stored["weight"][where], rounded(weight[where].float() / scale))
    decoded = BLOCK.dequantize_weight(stored, dtype=torch.float32)
    assert (decoded - weight.float()).abs().max() <= weight.float().abs().max() / 16


def test_a_weight_of_one_block_has_the_range_of_its_group() -> None:
    stored = BLOCK.quantize_weight(weights(64, 96), amax=896.0)
    assert stored["weight_scale"].tolist() == [[[[2.0]]]]


def test_experts_have_the_same_numbers_under_the_name_that_engines_load() -> None:
    weight = weights(256, 128)
    routed = stored_format("fp8_block", is_routed=True).quantize_weight(weight, amax=1.0)
    dense = stored_format("fp8_block", is_routed=False).quantize_weight(weight, amax=1.0)
    assert set(routed) == {"weight", "weight_scale_inv"}
    assert torch.equal(routed["weight_scale_inv"], dense["weight_scale"][:, 0, :, 0])
    assert is_same(routed["weight"], dense["weight"])
    declared = stored_format("fp8_block", is_routed=True).weight_tensors((256, 128))
    assert declared["weight_scale_inv"].shape == (2, 1)


def test_rows_are_cut_at_blocks() -> None:
    """Big weights are quantized a part of their rows at a time."""
    weight = torch.randn(1, 1280, 1024, generator=torch.Generator().manual_seed(1)).bfloat16()
    together = BLOCK.quantize_weights(weight, amax=[1.0])
    parts = [weight[0, first : first + 128] for first in range(0, 1280, 128)]
    apart = [BLOCK.quantize_weight(part, amax=1.0) for part in parts]
    scales = torch.cat([part["weight_scale"] for part in apart])
    assert torch.equal(together["weight_scale"][0], scales)
    assert is_same(
        together["weight"][0], torch.cat([part["weight"].view(torch.uint8) for part in apart])
    )


@pytest.mark.parametrize("name", ["fp8_channel", "fp8_block"])
def test_types_and_shapes_are_known_before_there_is_a_weight(name: str) -> None:
    stored = get_format(name).quantize_weight(weights(130, 140), amax=1.0)
    known = get_format(name).weight_tensors((130, 140))
    assert {k: tuple(t.shape) for k, t in stored.items()} == {k: t.shape for k, t in known.items()}
