"""The short convolution of linear attention by another package's kernel."""

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as family

from harness.models import fused_convolutions, load_model, open_source, read_inventory

B, T, C, K = 2, 9, 12, 4


def running_model(folder: Path, *, device: str = "cpu") -> nn.Module:
    source = open_source(str(folder))
    return load_model(source, read_inventory(source), device=device, dtype=torch.bfloat16)


def some_input(device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Return hidden states as a model hands them over, [B, C, T], and taps [C, K]."""
    seed = torch.Generator().manual_seed(0)
    hidden_BTC = torch.randn(B, T, C, generator=seed).to(device, torch.bfloat16)
    return hidden_BTC.transpose(1, 2), torch.randn(C, K, generator=seed).to(device, torch.bfloat16)


class Told(nn.Module):
    """Says that a tensor is on a GPU."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = tensor
        self.dtype, self.is_cuda = tensor.dtype, True

    def transpose(self, one: int, other: int) -> Tensor:
        return self.tensor.transpose(one, other)


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Stand in for flash-linear-attention: its function's signature, torch's arithmetic."""
    seen: list[tuple[int, ...]] = []

    def causal_conv1d(
        x_BTC: Tensor, weight_CK: Tensor, bias: Tensor | None, *, activation: str | None
    ) -> tuple[Tensor, None]:
        seen.append(tuple(x_BTC.shape))
        taps_C1K = weight_CK.unsqueeze(1).float()
        wide_BCT = nn.functional.pad(x_BTC.transpose(1, 2).float(), (K - 1, 0))
        out_BCT = nn.functional.conv1d(wide_BCT, taps_C1K, bias, groups=C)
        out_BCT = nn.functional.silu(out_BCT) if activation else out_BCT
        return out_BCT.transpose(1, 2).to(x_BTC.dtype), None

    for name in ("fla", "fla.modules", "fla.modules.causal_conv1d"):
        module: Any = ModuleType(name)
        module.__spec__, module.causal_conv1d = ModuleSpec(name, None), causal_conv1d
        monkeypatch.setitem(sys.modules, name, module)
    return seen


@pytest.mark.parametrize("activation", ["silu", None])
def test_the_kernel_gives_what_transformers_gives(
    tiny_models: dict[str, Path], package: list[tuple[int, ...]], activation: str | None
) -> None:
    model = running_model(tiny_models["qwen3_5_moe"])
    theirs: Callable[..., Any] = family.causal_conv1d_fn
    hidden_BCT, weight_CK = some_input()
    expected = theirs(hidden_BCT, weight_CK, None, activation=activation)
    with fused_convolutions(model):
        ours: Callable[..., Any] = family.causal_conv1d_fn
        found = ours(Told(hidden_BCT), weight_CK, None, activation=activation)
        assert package == [(B, T, C)]
    assert found.shape == expected.shape
    assert_close(found, expected)
    assert family.causal_conv1d_fn is theirs


@pytest.mark.parametrize("kind", ["on a CPU", "another type", "another activation"])
def test_what_the_kernel_does_not_take_runs_as_before(
    tiny_models: dict[str, Path], package: list[tuple[int, ...]], kind: str
) -> None:
    model = running_model(tiny_models["qwen3_5_moe"])
    hidden_BCT, weight_CK = some_input()
    activation = "gelu" if kind == "another activation" else "silu"
    weight_CK = weight_CK.float() if kind == "another type" else weight_CK
    theirs: Callable[..., Any] = family.causal_conv1d_fn
    expected = theirs(hidden_BCT, weight_CK, activation=activation)
    with fused_convolutions(model):
        ours: Callable[..., Any] = family.causal_conv1d_fn
        assert ours(hidden_BCT, weight_CK, activation=activation).equal(expected)
    assert package == []


def test_without_the_package_nothing_is_exchanged(
    tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = running_model(tiny_models["qwen3_5_moe"])
    theirs = family.causal_conv1d_fn
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with fused_convolutions(model):
        assert family.causal_conv1d_fn is theirs


def test_a_model_without_such_convolutions_runs(
    tiny_models: dict[str, Path], package: list[tuple[int, ...]]
) -> None:
    model: Any = running_model(tiny_models["mixtral"])
    with torch.inference_mode(), fused_convolutions(model):
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))
    assert package == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(not importlib.util.find_spec("fla"), reason="needs flash-linear-attention")
def test_the_real_kernel_gives_what_transformers_gives(tiny_models: dict[str, Path]) -> None:
    model = running_model(tiny_models["qwen3_5_moe"], device="cuda")
    theirs: Callable[..., Any] = family.causal_conv1d_fn
    hidden_BCT, weight_CK = some_input("cuda")
    expected = theirs(hidden_BCT.contiguous(), weight_CK, activation="silu")
    with fused_convolutions(model):
        ours: Callable[..., Any] = family.causal_conv1d_fn
        assert ours is not theirs
        found = ours(hidden_BCT, weight_CK, activation="silu")
    assert_close(found, expected, rtol=2**-6, atol=2**-8)
