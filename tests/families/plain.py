"""Not a test: NVFP4 decoded plainly, and how far a decoded weight may be from its source."""

import torch
from torch import Tensor

VALUES = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
BLOCK = 16


def decode_nvfp4(packed: Tensor, scale: Tensor, total: Tensor) -> Tensor:
    """Return the weight that codes, block scales and the global scale mean."""
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(-2).long()
    values = VALUES[codes & 7] * torch.where(codes >= 8, -1.0, 1.0)
    return values * scale.float().repeat_interleave(BLOCK, dim=-1) * total.float()


def is_rounded(decoded: Tensor, weight: Tensor) -> bool:
    """Whether every value is within half the widest step of its block, scales rounded too."""
    blocks = weight.float().reshape(weight.shape[0], -1, BLOCK).abs().amax(dim=-1)
    bound = (blocks / 6 * 1.07).repeat_interleave(BLOCK, dim=-1)
    return decoded.shape == weight.shape and bool(((decoded - weight.float()).abs() <= bound).all())
