"""The kernel for GPUs against the plain functions, bit for bit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.formats import get_format
from tests.kernels import round_once

FP8 = get_format("fp8")


def awkward_weights() -> Tensor:
    """Stacked weights with zeros of both signs, empty rows, and values far below the largest."""
    generator = torch.Generator().manual_seed(0)
    weight_EOI = (torch.randn(3, 70, 96, generator=generator).pow(3) * 0.02).bfloat16()
    weight_EOI[1, 3] = 0
    weight_EOI[0, 0, :2] = torch.tensor([-0.0, 0.0])
    weight_EOI[0, 2] *= 2.0**-30
    weight_EOI[0, 4, 1::2] *= 2.0**-110
    weight_EOI[2] *= 2.0**-60
    return weight_EOI


def check_weights(device: str) -> None:
    from harness.formats.fp8_triton import quantize  # noqa: PLC0415 - only where Triton is

    for rows, dtype in [
        (slice(None), torch.bfloat16),
        (slice(35, 70), torch.bfloat16),
        (slice(None), torch.float32),
    ]:
        weight_EOI = awkward_weights()[:, rows].to(dtype)
        if dtype == torch.float32:  # subnormal numbers of either sign, and one beyond its range
            weight_EOI[0, 6, :3] = torch.tensor([-(2.0**-149), 2.0**-149, 3.0])
        amax = weight_EOI.float().abs().amax(dim=(1, 2)).tolist()
        if dtype == torch.float32:
            amax[0] = 2.0
        plain = FP8.quantize_weights(weight_EOI, amax=amax)
        codes = quantize(weight_EOI.to(device), plain["weight_scale"].to(device))
        assert torch.equal(codes.cpu().view(torch.uint8), plain["weight"].view(torch.uint8))


def quotients_at_the_bounds(away: int) -> tuple[Tensor, Tensor]:
    """Return weights [E, 1, 1] and scales [E] whose quotients lie halfway, or nearly.

    Every mantissa of a bfloat16 weight is divided by weight / bound, and by the steps that are up
    to `away` roundings from that; bounds lie between codes, subnormal ones among them.
    """
    codes = torch.arange(0, 0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    bounds = ((codes[:-1] + codes[1:]) / 2).astype(np.float32)
    mantissas = (1 + np.arange(128) / 128).astype(np.float32)
    nearest = mantissas[:, None] / bounds
    ulps = np.arange(-away, away + 1, dtype=np.int32)
    scales = (nearest.view(np.int32)[..., None] + ulps).view(np.float32)
    mantissas[1::2] *= -1
    weights = np.broadcast_to(mantissas[:, None, None], scales.shape).reshape(-1).copy()
    scale_E = torch.from_numpy(scales.reshape(-1).copy())
    return torch.from_numpy(weights).reshape(-1, 1, 1).bfloat16(), scale_E


def check_quotients(device: str, away: int, step: int) -> None:
    """Compare the kernel with a division, where a wrong last bit would change the code.

    With each `step`-th of the quotients.
    """
    from harness.formats.e4m3 import to_e4m3  # noqa: PLC0415 - the plain function
    from harness.formats.fp8_triton import quantize  # noqa: PLC0415 - only where Triton is

    weight_EOI, scale_E = (one[::step].contiguous() for one in quotients_at_the_bounds(away))
    codes = to_e4m3(weight_EOI.float() / scale_E[:, None, None]).view(torch.uint8)
    assert len(set(codes.flatten().tolist())) > 0x7F  # of both signs
    found = quantize(weight_EOI.to(device), scale_E.to(device))
    assert torch.equal(found.cpu().view(torch.uint8), codes)


def interpreted() -> None:
    round_once()
    check_weights("cpu")
    check_quotients("cpu", 1, 61)


def test_the_kernel_for_gpus_gives_the_same_bits_when_it_is_interpreted(
    interpret: Callable[[str], None],
) -> None:
    interpret("tests.formats.test_fp8_kernel")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_for_gpus_gives_the_same_bits() -> None:
    check_weights("cuda")
    check_quotients("cuda", 8, 5)
