"""The kernel for GPUs that adds up x x^T or y x^T of experts, against plain sums in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.kernels import MOST_SHARED


def check_sums(device: str, dtype: torch.dtype) -> None:
    """Compare with sums in float64; an expert without rows, one with few, and rows of none."""
    from harness.calibrate.products_triton import add_products  # noqa: PLC0415 - not everywhere

    generator = torch.Generator().manual_seed(0)
    ends = [70, 70, 75, 90]
    for width, block in ((144, None), (48, 16), (32, None)):
        x_NI = (torch.randn(100, width, generator=generator) + 0.5).to(dtype)
        size, number = (width, ()) if block is None else (block, (width // block,))
        other_NI = torch.randn(100, width, generator=generator).to(dtype)
        before = torch.randn(4, *number, size, size, generator=generator)
        before = before + before.mT
        for y_NI in (x_NI, other_NI):
            sums, right_NI = before.to(device, copy=True), x_NI.to(device)
            left_NI = right_NI if y_NI is x_NI else y_NI.to(device)
            ends_E = torch.tensor(ends, dtype=torch.int32, device=device)
            add_products(sums, ends_E, right_NI, left_NI)
            for expert, (begin, end) in enumerate(zip([0, *ends], ends, strict=False)):
                shape = (end - begin, width // size, size)
                y_BNk, x_BNk = (
                    one[begin:end].double().reshape(shape).transpose(0, 1) for one in (y_NI, x_NI)
                )
                expected = (y_BNk.mT @ x_BNk).reshape(before.shape[1:]) + before[expert]
                assert torch.allclose(sums[expert].cpu().double(), expected, rtol=1e-5, atol=1e-5)


def interpreted() -> None:
    check_sums("cpu", torch.float16)  # the interpreter multiplies the bits of bfloat16


def test_sums_of_each_expert_s_rows_are_exact_when_the_kernel_is_interpreted(
    interpret: Callable[[str], None],
) -> None:
    interpret("tests.calibrate.test_products_kernel")


@pytest.mark.parametrize(("tile", "is_square"), [(16, True), (128, True), (128, False)])
def test_the_kernel_for_gpus_is_compiled_for_matrix_units(
    compile_kernel: Callable[..., Any], tile: int, *, is_square: bool
) -> None:
    from harness.calibrate import products_triton  # noqa: PLC0415 - not everywhere

    types = {"y": "*bf16", "x": "*bf16", "ends": "*i32", "sums": "*fp32"}
    types |= dict.fromkeys(("y_N", "x_N", "size"), "i32")
    constants = {"TOKENS": 64, "TILE": tile, "IS_SQUARE": is_square}
    found = compile_kernel(products_triton.kernel, types, constants, products_triton.OPTIONS)
    assert found.asm["cubin"]
    assert "mma" in found.asm["ptx"]  # the matrix units
    assert found.metadata.shared < MOST_SHARED


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_of_each_expert_s_rows_are_exact(dtype: torch.dtype) -> None:
    check_sums("cuda", dtype)
