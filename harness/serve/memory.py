"""Whether a model fits, asked before it is loaded: Linux kills a process that asks too late."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import psutil
import torch

from harness.artifacts import Inventory
from harness.errors import EngineError, ReasonCode

_GIB = 1 << 30
_HOST_ALLOCATOR = "DefaultCPUAllocator"
"""torch raises a plain RuntimeError with this name when the host has no memory left."""


def num_weights(inventory: Inventory) -> int:
    """Return how many numbers the running model holds."""
    linears = sum(prod(linear.shape) for linear in inventory.linears)
    return linears + sum(prod(inventory.tensors[name].shape) for name in inventory.others.values())


def refuse_if_too_large(num_bytes: int, device: str) -> None:
    """Refuse a model whose weights alone are larger than the free memory.

    Raises:
        EngineError: they are.
    """
    free = _free_bytes(device)
    if num_bytes > free:
        message = (
            f"the model needs {num_bytes / _GIB:.1f} GiB on '{device}', which has "
            f"{free / _GIB:.1f} GiB free. Use a larger device, or the vllm engine."
        )
        raise EngineError(message, reason=ReasonCode.OUT_OF_MEMORY)


@contextmanager
def naming_lack_of_memory(device: str) -> Iterator[None]:
    """Turn torch's own errors for exhausted memory into one clear line.

    Raises:
        EngineError: memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        is_host = isinstance(error, MemoryError) or _HOST_ALLOCATOR in str(error)
        if not is_host and not isinstance(error, torch.OutOfMemoryError):
            raise
        message = f"no memory was left on '{device}' while the model was loaded. Free some."
        raise EngineError(message, reason=ReasonCode.OUT_OF_MEMORY) from error


def _free_bytes(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
