"""The memory that experts compute in, which vLLM's CPU workers did not set up before 0.30.

Their own experts do without; those that are put in here are called as a GPU's are, and ask for it.
vLLM's manager of that memory empties an accelerator's cache, so it cannot be taken for CPU.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import vllm.model_executor.layers.fused_moe.modular_kernel as mk
from torch import Tensor
from vllm.v1.worker.workspace import is_workspace_manager_initialized


class NewEachTime:
    """Gives memory that nothing else has; a CPU's allocator keeps what is given back."""

    def get_simultaneous(self, *wanted: tuple[tuple[int, ...], torch.dtype]) -> list[Tensor]:
        """Return a tensor for each shape and type."""
        return [torch.empty(shape, dtype=dtype) for shape, dtype in wanted]


def install() -> None:
    """Give it where no worker has set up any."""
    mk.current_workspace_manager = _or_ours(mk.current_workspace_manager)


def _or_ours(original: Callable[[], Any]) -> Callable[[], Any]:
    ours = NewEachTime()

    @wraps(original)
    def current_workspace_manager() -> Any:
        return original() if is_workspace_manager_initialized() else ours

    return current_workspace_manager
