"""Which GPUs each arm gets, and that what calibration held is given back to them."""

import gc
import sys

from harness.preflight import Gpus, assign_gpus

__all__ = ["Gpus", "assign_gpus", "free_gpu_memory"]


def free_gpu_memory() -> None:
    """Give back what calibration held: an engine asks for nearly all of a GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
