"""Kernels for GPUs, where there is what compiles them."""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def triton_module(name: str, device: "torch.device") -> ModuleType | None:
    """Return a module of kernels; None where there is no GPU or no Triton."""
    if device.type != "cuda":
        return None
    try:
        return import_module(name)
    except ImportError:  # Triton comes with CUDA's torch
        return None
