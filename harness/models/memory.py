"""What running out of memory looks like."""

import torch

RUN_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a model raises where it cannot run."""


def is_out_of_memory(error: Exception) -> bool:
    """Tell running out of memory from other failures; on the CPU torch has no class for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)
