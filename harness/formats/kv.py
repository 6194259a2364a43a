"""Keys and values: E4M3 or NVFP4 with one float32 scale a layer, or with scale 1 (a cast).

Keys are taken after rotary embedding, for that is what the engine stores.
Source: nvidia-modelopt 0.47.0, torch/export/quant_utils.py (scales); vLLM 0.32.0,
v1/attention/ops/triton_reshape_and_cache_flash.py (`key / k_scale`, then the cast).
"""

import torch
from torch import Tensor

from harness.formats.e4m3 import E4M3_MAX, scale_of, to_e4m3
from harness.formats.format import check_amax
from harness.formats.known import get_format


def kv_scale(amax: float) -> Tensor:
    """Return amax / 448, a float32 scalar; keys or values that were always zero get 1."""
    return scale_of(check_amax(amax) or E4M3_MAX, E4M3_MAX)


def qdq_kv_nvfp4(x: Tensor, *, scale: Tensor) -> Tensor:
    """Round keys or values to E2M1 in blocks of 16 along a head, in their own type.

    The scale of the layer takes the place of NVFP4's global scale, as the peer and the engine have
    it; it is amax / 448 all the same, so that the scales of blocks use a sixth of E4M3's range.
    Source: nvidia-modelopt 0.47.0, torch/export/quant_utils.py, `postprocess_state_dict`.
    """
    return get_format("nvfp4").qdq_input(x, input_scale=scale)


def qdq_kv(x: Tensor, *, scale: Tensor) -> Tensor:
    """Round keys or values as the engine's cache does, in their own type."""
    scale = scale.to(x.device, torch.float32)
    return (to_e4m3(x.float() / scale).float() * scale).to(x.dtype)
