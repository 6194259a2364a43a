"""How many tensor functions GPTQ calls: on a GPU each is a kernel, and takes as long to start."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.algorithms import SecondMoments, gptq

_MOST = 96
"""Besides those of each 64 features."""
_MOST_A_BLOCK = 4
"""Of 64 features."""


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Counts what is called, but for views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.number = 0

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's own
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        returned = [one.alias_info for one in func._schema.returns]  # noqa: SLF001 - no public one
        self.number += not all(one is not None and not one.is_write for one in returned)
        return func(*args, **kwargs or {})


def called(number: int, width: int) -> int:
    """Return how many functions are called for some weights that are done once."""
    weight = torch.randn(number, 8, width, generator=torch.Generator().manual_seed(0))
    scale = torch.ones(number, 8, width // 16)
    moments = SecondMoments.of_noise(number, width, whole=True, device="cpu")
    counted = Counted()
    with counted:
        gptq.made_up(weight, scale, moments, damping=0.01)
    return counted.number


@pytest.fixture
def with_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one function stand for the kernel, which rounds nothing."""

    def rounded(moved_EkO: Tensor, *_: Tensor) -> Tensor:
        return moved_EkO.clone()

    kernels = SimpleNamespace(round_features=rounded)
    monkeypatch.setattr(gptq, "triton_module", lambda *_: kernels)


@pytest.mark.usefixtures("with_kernel")
def test_on_a_gpu_64_features_cost_a_handful_of_kernels() -> None:
    assert called(1, 64) <= _MOST + _MOST_A_BLOCK
    assert called(1, 64 * 9) - called(1, 64) == 8 * _MOST_A_BLOCK


@pytest.mark.usefixtures("with_kernel")
def test_many_experts_cost_no_more_kernels_than_one() -> None:
    assert called(16, 128) == called(1, 128)
