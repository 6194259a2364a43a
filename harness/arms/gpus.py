"""Which GPUs each arm gets."""

import gc
import os
import sys

from harness.artifacts import EngineSpec

Gpus = tuple[int, ...] | None
"""Which GPUs an arm may use; None for all."""


def assign_gpus(engine: EngineSpec) -> tuple[Gpus, Gpus]:
    """Return the GPUs of the candidate and of the baseline; None twice where they must share."""
    if engine.name != "vllm" or not engine.device.startswith("cuda"):
        return None, None
    visible = _visible_gpus()
    size = engine.tensor_parallel_size
    if len(visible) < 2 * size:
        return None, None
    return visible[:size], visible[size : 2 * size]


def _visible_gpus() -> tuple[int, ...]:
    """Return the GPUs that this process may use, by the numbers that CUDA_VISIBLE_DEVICES takes."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        return tuple(int(n) for n in names) if all(n.isdigit() for n in names) else ()
    import torch

    return tuple(range(torch.cuda.device_count()))


def free_gpu_memory() -> None:
    """Give back what calibration held: an engine asks for nearly all of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
