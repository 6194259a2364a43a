"""GPTQ's kernel for GPUs against the plain function, bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.algorithms import SecondMoments, gptq
from harness.formats.nvfp4 import nearest
from tests.kernels import round_once


def rows_to_round(features: int, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `round_features` takes: parts of more features, with halfway values among them.

    The first that is rounded has steps of 1 and quarters; one row's steps are subnormal numbers.
    """
    generator = torch.Generator().manual_seed(0)
    part = slice(16, 16 + features)
    weight, moved = (torch.randn(2, 16 + features, rows, generator=generator) for _ in range(2))
    step = torch.rand(2, 16 + features, rows, generator=generator) * 0.4 + 0.1
    step[:, -1] = 1.0
    moved[:, -1] = torch.arange(-rows, rows, 2) / 4
    step[0, :, 3], moved[0, :, 3] = 2.0**-140, moved[0, :, 3] * 2.0**-139
    factor = torch.randn(2, 16 + features, 16 + features, generator=generator).tril(-1) * 0.2
    given = weight[:, part], step[:, part], factor[:, part, part]
    return moved[:, part].contiguous(), *given


def check_rounding(device: str) -> None:
    """Compare the kernel for GPUs with the plain function, bit for bit."""
    from harness.algorithms.gptq_triton import round_features  # noqa: PLC0415 - not everywhere

    for features, rows in ((64, 40), (16, 33), (128, 8)):
        moved, weight, step, factor = (x.to(device) for x in rows_to_round(features, rows))
        plain = gptq.round_features(*rows_to_round(features, rows))
        for lies in (factor, factor.mT.contiguous().mT):
            found = round_features(moved, weight, step, lies)
            assert torch.equal(found.cpu(), plain)
        assert len(set(plain.flatten().tolist())) > 15


def check_whole_weights() -> None:
    """Let the kernel round stacked weights, part after part, where the plain function did."""
    from harness.algorithms import gptq_triton  # noqa: PLC0415 - not everywhere

    given = weights_to_round(2, 12, 144)
    plain = gptq.made_up(*given, damping=0.01)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gptq, "triton_module", lambda *_: gptq_triton)
        found = gptq.made_up(*given, damping=0.01)
    assert torch.equal(found, plain)
    assert not torch.equal(found, nearest(given[0] / 0.01) * 0.01)


def weights_to_round(number: int, rows: int, width: int) -> tuple[Tensor, Tensor, SecondMoments]:
    """Return what `made_up` takes, with steps of 0.01 and inputs that go together somewhat."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(number, rows, width, generator=generator) * 0.02
    mixing = torch.randn(width, width, generator=generator) * 0.3 / width**0.5
    x = torch.randn(number, 4 * width, width, generator=generator) @ (mixing + torch.eye(width))
    step = torch.full((number, rows, width // 16), 0.01)
    return weight, step, SecondMoments(x.mT @ x, torch.full((number,), 4 * width))


def interpreted() -> None:
    round_once()
    check_rounding("cpu")
    check_whole_weights()


def test_the_kernel_for_gpus_gives_the_same_bits_when_it_is_interpreted(
    interpret: Callable[[str], None],
) -> None:
    interpret("tests.algorithms.test_gptq_kernel")


def test_the_kernel_for_gpus_is_compiled_without_fused_products(
    compile_kernel: Callable[..., Any],
) -> None:
    """A product that is not rounded before it is added gives other bits than tensor functions."""
    from harness.algorithms import gptq_triton  # noqa: PLC0415 - not everywhere

    pointers = dict.fromkeys(("moved", "weight", "step", "factor", "values"), "*fp32")
    numbers = (
        "weight_E",
        "step_E",
        "factor_E",
        "factor_row",
        "factor_column",
        "num_rows",
        "num_features",
    )
    types = {**pointers, **dict.fromkeys(numbers, "i32")}
    constants = {"MOST": 64, "ROWS": gptq_triton.ROWS}
    found = compile_kernel(gptq_triton.kernel, types, constants, gptq_triton.OPTIONS)
    fused = [line for line in found.asm["ptx"].splitlines() if "fma.rn.f32" in line]
    assert found.asm["cubin"]
    assert len(fused) == 2  # those of the rounding to E2M1, which are exact
    assert "mul.rn.f32" in found.asm["ptx"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernel_for_gpus_gives_the_same_bits() -> None:
    check_rounding("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_nearly_all_values_are_those_of_the_cpu() -> None:
    """Sums over more features than are rounded together are taken in another order there."""
    weight, step, moments = weights_to_round(4, 64, 320)
    plain = gptq.made_up(weight, step, moments, damping=0.01)
    there = SecondMoments(moments.sums.cuda(), moments.tokens_E.cuda())
    given = weight.cuda(), step.cuda(), there
    found = gptq.made_up(*given, damping=0.01).cpu()
    assert (found == plain).float().mean() > 0.99
