"""Families on a GPU: quantized there, and answered with there as on the CPU."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.artifacts import EngineSpec
from harness.serve.reference import serve_reference
from tests.models.test_discovery import HARD
from tests.typed import typed

LATER = {"aria_text"}  # with transformers 5.19; before, its experts are two modules
NAMES = (
    *sorted(set(HARD) - LATER),
    "deepseek_v4",
    "glm4_moe",
    "kimi_linear",
    "lfm2_moe",
    "minimax_m2",
    "qwen3_next",
)


def logits(checkpoint: Path, device: str) -> torch.Tensor:
    engine = EngineSpec(name="reference", numerics="emulated", device=device, dtype="float32")
    ids = torch.arange(40, 64)[None].to(device)
    with serve_reference(engine, checkpoint) as served, torch.no_grad():
        found: torch.Tensor = served.model(input_ids=ids, use_cache=False).logits
    return found.float().cpu().flatten()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_quantizes_a_family_and_answers_as_the_cpu_does(
    name: str, families: Callable[[str], Path], tmp_path: Path
) -> None:
    samples = torch.randint(0, 256, (16, 32), generator=torch.Generator().manual_seed(0))
    data = tmp_path / "samples.jsonl"
    data.write_text("\n".join(json.dumps({"input_ids": row}) for row in samples.tolist()))
    options = ("--calib-data", data, "--calib-size", 16, "--calib-seq", 32, "--device", "cuda")
    source, run = families(name), tmp_path / "run"
    done = typed("quantize", "--model", source, "--qformat", "nvfp4", "--out", run, *options)
    assert done.code == 0, done.err
    cpu, gpu = (logits(run / "checkpoint", device) for device in ("cpu", "cuda"))
    # Rounding of inputs may fall to the other side where sums differ in their last bit.
    assert torch.corrcoef(torch.stack([cpu, gpu]))[0, 1] > 0.98
