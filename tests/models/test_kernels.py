"""The kernels for GPUs that run a model's norms and add up its experts, against plain torch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.models.norms import Formula
from tests.kernels import MOST_SHARED

FORMULAS = [
    Formula("", zero_centred=zero_centred, rounded=rounded, gated=gated)
    for zero_centred, rounded in ((False, True), (False, False), (True, False))
    for gated in (False, True)
]


def check_norms(device: str, dtype: torch.dtype) -> None:
    """Compare rows of several widths with the formula: some last bits may differ, none by more."""
    from harness.models.norms_triton import normalize  # noqa: PLC0415 - not everywhere

    seed = torch.Generator().manual_seed(0)
    for num_rows, width in ((5, 24), (70, 128), (3, 5000)):
        input_RW = torch.randn(num_rows, width, generator=seed)
        input_RW *= torch.logspace(-3, 2, num_rows).unsqueeze(1)
        input_RW, gate_RW = (
            input_RW.to(dtype),
            torch.randn(num_rows, width, generator=seed).to(dtype),
        )
        weight_W = (torch.randn(width, 2, generator=seed) / 4).to(dtype)[:, 0]  # no neighbours
        for formula in FORMULAS:
            gate = gate_RW if formula.gated else None
            expected = formula.of(input_RW, weight_W, gate, 1e-6).float()
            found = normalize(
                input_RW.to(device),
                weight_W.to(device),
                None if gate is None else gate.to(device),
                eps=1e-6,
                zero_centred=formula.zero_centred,
                rounded=formula.rounded,
            )
            assert found.dtype == dtype
            differs = (found.cpu().float() - expected).abs()
            # Two roundings where the formula has two, and one bit in each.
            assert (differs <= 2 * torch.finfo(dtype).eps * expected.abs() + 1e-7).all()
            assert (differs > 0).float().mean() < 0.02


def check_sums(device: str, dtype: torch.dtype) -> None:
    """Compare with sums in float64, rounded once."""
    from harness.models.experts_triton import weighted_sum  # noqa: PLC0415 - not everywhere

    seed = torch.Generator().manual_seed(0)
    for width, num_each in ((48, 3), (2500, 2)):
        output_SH = torch.randn(40, width, generator=seed).to(dtype)
        places_NK = torch.randint(40, (9, num_each), generator=seed)
        weights_NK = torch.rand(9, num_each, generator=seed).to(dtype)
        exact = (output_SH.double()[places_NK] * weights_NK.double().unsqueeze(-1)).sum(1)
        given = (one.to(device) for one in (output_SH, places_NK, weights_NK))
        found = weighted_sum(*given)
        assert found.dtype == dtype
        assert torch.allclose(found.cpu().double(), exact, rtol=torch.finfo(dtype).eps, atol=1e-6)


def interpreted() -> None:
    check_norms("cpu", torch.float16)
    check_sums("cpu", torch.float16)


def test_interpreted_kernels_give_what_torch_gives(interpret: Callable[[str], None]) -> None:
    interpret("tests.models.test_kernels")


def test_the_kernels_are_compiled_for_gpus(compile_kernel: Callable[..., Any]) -> None:
    from harness.models import experts_triton, norms_triton  # noqa: PLC0415 - not everywhere

    types = dict.fromkeys(("input", "weight", "gate", "output"), "*bf16")
    types |= {"num_rows": "i32", "width": "i32", "eps": "fp32"}
    flags = {"ZERO_CENTRED": True, "ROUNDED": False, "GATED": True}
    for rows, block in ((2, 2048), (32, 128), (1, norms_triton.MOST_FEATURES)):
        constants = {"ROWS": rows, "BLOCK": block, **flags}
        found = compile_kernel(norms_triton.kernel, types, constants, norms_triton.OPTIONS)
        assert found.asm["cubin"]
        assert found.metadata.shared < MOST_SHARED
    types = {"rows": "*bf16", "places": "*i64", "weights": "*bf16", "sums": "*bf16", "width": "i32"}
    constants = {"EACH": 8, "BLOCK": 2048}
    assert compile_kernel(experts_triton.kernel, types, constants, experts_triton.OPTIONS).asm[
        "cubin"
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_kernels_give_what_torch_gives(dtype: torch.dtype) -> None:
    check_norms("cuda", dtype)
    check_sums("cuda", dtype)
