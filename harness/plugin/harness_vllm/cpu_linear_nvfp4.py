"""NVFP4 linear kernels that vLLM's CPU build lacks: W4A4 and weight-only.

Shape suffixes: T tokens, I inputs, O outputs.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import vllm.model_executor.kernels.linear as kernels
from torch import Tensor
from vllm.model_executor.kernels.linear import NvFp4LinearLayerConfig
from vllm.model_executor.kernels.linear.nvfp4.emulation import EmulationNvFp4LinearKernel
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.platforms import PlatformEnum

from .cpu_linear import WEIGHT, product
from .rounding import BLOCK, qdq_nvfp4


class CpuEmulationNvFp4LinearKernel(EmulationNvFp4LinearKernel):  # type: ignore[misc]  # vllm is untyped here
    """W4A4: the arithmetic of vLLM's emulation; the weight is dequantized once, not per call."""

    weight_dtype: torch.dtype | None = None
    """Type that a weight is rounded to; None is the model's, as vLLM's emulation has it."""

    def process_weights_after_loading(self, layer: Any) -> None:
        """Keep the dequantized weight beside the packed one."""
        super().process_weights_after_loading(layer)
        weight_OI = dequantize_to_dtype(
            layer.weight.data,
            layer.weight_scale.data,
            layer.weight_global_scale,
            self.weight_dtype or torch.get_default_dtype(),
            BLOCK,
            swizzle=False,
        )
        layer.register_buffer(WEIGHT, weight_OI.float(), persistent=False)

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x W^T + bias in the type of `x`."""
        return product(self.rounded(layer, x), layer.get_buffer(WEIGHT), x.dtype, bias)

    def rounded(self, layer: Any, x: Tensor) -> Tensor:
        """Return the inputs as the multiplication sees them."""
        return qdq_nvfp4(x, layer.input_global_scale_inv)


class CpuEmulationNvFp4W4A16LinearKernel(CpuEmulationNvFp4LinearKernel):
    """Weight-only: inputs stay as they are, and codes times scales are not rounded to bfloat16.

    Marlin, which computes this on a GPU, applies the global scale to the float32 sum; its
    products of a code and a block scale are exact in bfloat16.
    """

    weight_dtype = torch.float32

    def rounded(self, layer: Any, x: Tensor) -> Tensor:
        """Return the inputs, unchanged."""
        del layer
        return x


PROVIDES = (CpuEmulationNvFp4LinearKernel, CpuEmulationNvFp4W4A16LinearKernel)


def install() -> None:
    """Enter them into vLLM's lists, which have none for CPU."""
    emulating = kernels._LINEAR_BACKEND_KERNEL_MAP["emulation"]
    kernels._POSSIBLE_NVFP4_KERNELS[PlatformEnum.CPU] = [CpuEmulationNvFp4LinearKernel]
    emulating.add(CpuEmulationNvFp4LinearKernel)
    modelopt.init_nvfp4_linear_kernel = with_weight_only(modelopt.init_nvfp4_linear_kernel)


def with_weight_only(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give the weight-only kernel where vLLM would insist on Marlin, which is CUDA only."""

    @wraps(original)
    def init(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("use_a16", args[0] if args else False):
            return CpuEmulationNvFp4W4A16LinearKernel(NvFp4LinearLayerConfig())
        return original(*args, **kwargs)

    return init
