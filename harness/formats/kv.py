"""FP8 keys and values: E4M3 with one float32 scale a layer, or with scale 1 (`fp8_cast`).

Keys are taken after rotary embedding, for that is what the engine stores.
Source: nvidia-modelopt 0.47.0, torch/export/quant_utils.py (scales); vLLM 0.32.0,
v1/attention/ops/triton_reshape_and_cache_flash.py (`key / k_scale`, then the cast).
"""

import torch
from torch import Tensor

from harness.formats.e4m3 import E4M3_MAX, scale_of, to_e4m3
from harness.formats.format import check_amax


def kv_scale(amax: float) -> Tensor:
    """Return amax / 448, a float32 scalar; keys or values that were always zero get 1."""
    return scale_of(check_amax(amax) or E4M3_MAX, E4M3_MAX)


def qdq_kv(x: Tensor, *, scale: Tensor) -> Tensor:
    """Round keys or values as the engine's cache does, in their own type."""
    scale = scale.to(x.device, torch.float32)
    return (to_e4m3(x.float() / scale).float() * scale).to(x.dtype)
