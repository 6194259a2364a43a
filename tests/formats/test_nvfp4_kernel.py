"""The kernel for GPUs against the plain functions, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.formats import get_format
from tests.kernels import round_once

NVFP4 = get_format("nvfp4")


def awkward_weights() -> Tensor:
    """Stacked weights with halfway values, zeros of both signs, empty blocks and empty rows."""
    generator = torch.Generator().manual_seed(0)
    weight_EOI = (torch.randn(3, 80, 96, generator=generator).pow(3) * 0.02).bfloat16()
    weight_EOI[1, 3] = 0
    weight_EOI[2, 5, :16] = 0
    weight_EOI[0, 0, 0] = -0.0
    halfway = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0])
    weight_EOI[0, 1, :16] = torch.cat([halfway, -halfway]).bfloat16()
    weight_EOI[0, 2] *= 2.0**-30
    weight_EOI[0, 4, 1::2] *= 2.0**-100
    weight_EOI[2] *= 2.0**-60
    return weight_EOI


def check_fused_kernel(device: str) -> None:
    """Compare the kernel for GPUs with the plain functions, bit for bit."""
    from harness.formats.nvfp4_triton import quantize  # noqa: PLC0415 - only where Triton is

    every, halves = slice(None), (slice(0, 40), slice(40, 80))
    cases = [(rows, torch.bfloat16) for rows in (every, *halves)]
    for rows, dtype in [*cases, (every, torch.float32)]:
        weight_EOI = awkward_weights()[:, rows].to(dtype)
        if dtype == torch.float32:  # subnormal numbers of either sign, whose quotients are zeros
            weight_EOI[0, 6, :3] = torch.tensor([-(2.0**-149), 2.0**-149, 2000.0])
        amax = weight_EOI.float().abs().amax(dim=(1, 2)).tolist()
        if rows == slice(None):
            amax[0] = 6 * 448  # global scale 1: halfway values stay halfway
        plain = NVFP4.quantize_weights(weight_EOI, amax=amax)
        packed, scale = quantize(weight_EOI.to(device), plain["weight_scale_2"].to(device))
        assert torch.equal(packed.cpu(), plain["weight"])
        scale_2 = plain["weight_scale"].view(torch.uint8)
        assert torch.equal(scale.cpu().view(torch.uint8), scale_2)


def quotients_at_the_bounds(away: int) -> tuple[Tensor, Tensor]:
    """Return weights [E, 1, 16] and global scales [E] whose quotients lie about each bound.

    Every mantissa of a bfloat16 weight is divided by weight / bound, and by the steps that are up
    to `away` roundings from that.
    """
    bounds = np.array([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0], dtype=np.float32)
    mantissas = (1 + np.arange(128) / 128).astype(np.float32)
    nearest = mantissas[:, None] / bounds
    ulps = np.arange(-away, away + 1, dtype=np.int32)
    steps = (nearest.view(np.int32)[..., None] + ulps).view(np.float32)
    weights = np.broadcast_to(mantissas[:, None, None], steps.shape).reshape(-1)
    scale_2_E = torch.from_numpy(steps.reshape(-1).copy()) / 256
    # Another weight of the block makes its scale 256: 6 * 256 * the global scale, or a bit less.
    weight_EOI = torch.zeros(len(weights), 1, 16)
    weight_EOI[:, 0, 0] = torch.from_numpy(weights.copy())
    weight_EOI[:, 0, 1] = -weight_EOI[:, 0, 0]
    weight_EOI[:, 0, 2] = 6 * 256 * scale_2_E
    return weight_EOI.bfloat16(), scale_2_E


def scales_at_the_bounds(away: int, step: int) -> tuple[Tensor, Tensor]:
    """Return weights [E, 1, 16] and global scales [E] whose block scales lie halfway, or nearly.

    Each `step`-th mantissa of a bfloat16 weight, over each halfway value of E4M3 from 8 to 16 and
    among its subnormal numbers, by global scales that are up to `away` roundings from that.
    """
    halfway = np.concatenate([np.arange(8.5, 16), 2.0**-9 * np.arange(1.5, 8)]).astype(np.float32)
    mantissas = (1 + np.arange(0, 128, step) / 128).astype(np.float32)
    nearest = mantissas[:, None] / (np.float32(6) * halfway)
    ulps = np.arange(-away, away + 1, dtype=np.int32)
    scale_2 = (nearest.view(np.int32)[..., None] + ulps).view(np.float32)
    weights = np.broadcast_to(mantissas[:, None, None], scale_2.shape).reshape(-1)
    weight_EOI = torch.zeros(len(weights), 1, 16)
    weight_EOI[:, 0, 3] = -torch.from_numpy(weights.copy())
    return weight_EOI.bfloat16(), torch.from_numpy(scale_2.reshape(-1).copy())


def check_scales(device: str, away: int, step: int) -> None:
    """Compare the kernel with a division, where a wrong last bit would change a block's scale."""
    from harness.formats.nvfp4 import (  # noqa: PLC0415 - the plain functions
        block_scales,
        packed_codes,
    )
    from harness.formats.nvfp4_triton import quantize  # noqa: PLC0415 - only where Triton is

    weight_EOI, scale_2_E = scales_at_the_bounds(away, step)
    scale = block_scales(weight_EOI, scale_2_E)
    packed = packed_codes(weight_EOI, scale, scale_2_E)
    assert len(set(scale.view(torch.uint8).flatten().tolist())) > 12  # neighbours of each bound
    found, found_scale = quantize(weight_EOI.to(device), scale_2_E.to(device))
    assert torch.equal(found_scale.cpu().view(torch.uint8), scale.view(torch.uint8))
    assert torch.equal(found.cpu(), packed)


def check_quotients(device: str, away: int) -> None:
    """Compare the kernel with a division, where a wrong last bit would change the code."""
    from harness.formats.nvfp4 import (  # noqa: PLC0415 - the plain functions
        block_scales,
        packed_codes,
    )
    from harness.formats.nvfp4_triton import quantize  # noqa: PLC0415 - only where Triton is

    weight_EOI, scale_2_E = quotients_at_the_bounds(away)
    scale = block_scales(weight_EOI, scale_2_E)
    packed = packed_codes(weight_EOI, scale, scale_2_E)
    assert (scale.float() == 256).all()
    found, found_scale = quantize(weight_EOI.to(device), scale_2_E.to(device))
    assert torch.equal(found_scale.cpu().view(torch.uint8), scale.view(torch.uint8))
    assert torch.equal(found.cpu(), packed)


def interpreted() -> None:
    round_once()
    check_fused_kernel("cpu")
    check_quotients("cpu", 1)
    check_scales("cpu", 1, 11)


def test_the_kernel_for_gpus_gives_the_same_bits_when_it_is_interpreted(
    interpret: Callable[[str], None],
) -> None:
    interpret("tests.formats.test_nvfp4_kernel")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_for_gpus_gives_the_same_bits() -> None:
    check_fused_kernel("cuda")
    check_quotients("cuda", 8)
    check_scales("cuda", 8, 1)
