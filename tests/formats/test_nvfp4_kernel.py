"""The kernel for GPUs against the plain functions, bit for bit."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.formats import get_format

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
    return weight_EOI


def check_fused_kernel(device: str) -> None:
    """Compare the kernel for GPUs with the plain functions, bit for bit."""
    from harness.formats.nvfp4_triton import quantize  # noqa: PLC0415 - only where Triton is

    for rows in (slice(None), slice(0, 40), slice(40, 80)):
        weight_EOI = awkward_weights()[:, rows]
        amax = weight_EOI.float().abs().amax(dim=(1, 2)).tolist()
        if rows == slice(None):
            amax[0] = 6 * 448  # global scale 1: halfway values stay halfway
        plain = NVFP4.quantize_weights(weight_EOI, amax=amax)
        packed, scale = quantize(weight_EOI.to(device), plain["weight_scale_2"].to(device))
        assert torch.equal(packed.cpu(), plain["weight"])
        scale_2 = plain["weight_scale"].view(torch.uint8)
        assert torch.equal(scale.cpu().view(torch.uint8), scale_2)


def test_the_kernel_for_gpus_gives_the_same_bits_when_it_is_interpreted() -> None:
    """Triton's interpreter is chosen when it is imported, so it runs in a process of its own."""
    pytest.importorskip("triton", reason="needs Triton, which CUDA builds of torch bring along")
    code = (
        "from tests.formats.test_nvfp4_kernel import check_fused_kernel; check_fused_kernel('cpu')"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_for_gpus_gives_the_same_bits() -> None:
    check_fused_kernel("cuda")
