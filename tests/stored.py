"""The tensors of a checkpoint's files."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor


def read_tensors(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for path in files for name, tensor in load_file(path).items()}


def same_bytes(a: Tensor, b: Tensor) -> bool:
    same_type = (a.dtype, a.shape) == (b.dtype, b.shape)
    return same_type and a.reshape(-1).view(torch.uint8).equal(b.reshape(-1).view(torch.uint8))
