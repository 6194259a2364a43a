"""Which engines there are, and what this machine must have for them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.artifacts import EngineSpec
from harness.errors import EngineError, PrerequisiteError, ReasonCode
from harness.serve import memory, resolve_engine, serve
from harness.serve.reference import serve_reference

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "tgi"}, "there is no engine 'tgi'"),
        ({"device": "cuda:63"}, "device 'cuda:63' is not there"),
        ({"device": "abacus"}, "'abacus' is no torch device"),
        ({"dtype": "int8"}, "no type 'int8'"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_read(
    engine: EngineSpec, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PrerequisiteError, match=message):
        resolve_engine(replace(engine, **changes))


def test_the_reference_engine_needs_nothing(engine: EngineSpec) -> None:
    resolve_engine(engine)


def test_a_model_that_does_not_fit_is_refused_with_both_numbers(
    tiny_qwen3_5_moe: Path, engine: EngineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda _: 1 << 10)
    with pytest.raises(EngineError, match="GiB on 'cpu', which has") as caught:
        serve(engine, tiny_qwen3_5_moe).__enter__()
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


def test_exhausted_memory_is_named() -> None:
    def exhaust() -> None:
        message = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"
        raise RuntimeError(message)

    with pytest.raises(EngineError) as caught, memory.naming_lack_of_memory("cpu"):
        exhaust()
    assert caught.value.reason is ReasonCode.OUT_OF_MEMORY


def test_a_folder_without_a_tokenizer_is_refused(
    tiny_qwen3: Path, engine: EngineSpec, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(tiny_qwen3 / name)
    with pytest.raises(EngineError, match="has no tokenizer"):
        serve(engine, tmp_path).__enter__()


@pytest.mark.gpu
def test_a_gpu_gives_the_logits_of_the_cpu(
    exported: Make, tiny_qwen3_5_moe: Path, engine: EngineSpec
) -> None:
    text, found = torch.tensor([[72, 101, 108, 108, 111]]), []
    for device in ("cpu", "cuda"):
        with (
            serve_reference(
                replace(engine, device=device), exported(tiny_qwen3_5_moe, "w4a16_nvfp4")
            ) as served,
            torch.no_grad(),
        ):
            found.append(served.model(text.to(device)).logits.cpu())
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
