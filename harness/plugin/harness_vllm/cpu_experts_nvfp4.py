"""NVFP4 experts that vLLM's CPU build lacks: W4A4 and weight-only."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import vllm.model_executor.layers.fused_moe.oracle.nvfp4 as nvfp4_oracle
from torch import Tensor
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.model_executor.layers.quantization.utils.quant_utils import kNvfp4Dynamic, kNvfp4Static

from .cpu_experts import CpuEmulationExperts
from .rounding import BLOCK, qdq_nvfp4


class CpuEmulationNvFp4Experts(CpuEmulationExperts):
    """W4A4: the arithmetic of vLLM's `Nvfp4QuantizationEmulationTritonExperts`."""

    scheme = (kNvfp4Static, kNvfp4Dynamic)

    def dequantize(
        self, weight: Tensor, scale: Tensor, total: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Round the weights to the model's type, as vLLM's emulation does."""
        rounded: Tensor = dequantize_to_dtype(weight, scale, total, dtype, BLOCK, swizzle=False)
        return rounded.float()

    def operand(self, x: Tensor, stage: int) -> Tensor:
        """Round to NVFP4 with the layer's one scale, the largest of its experts' scales."""
        return qdq_nvfp4(x, self.a2_gscale if stage else self.a1_gscale).float()


class CpuEmulationNvFp4W4A16Experts(CpuEmulationExperts):
    """Weight-only, as Marlin computes it; see `CpuEmulationNvFp4W4A16LinearKernel`."""

    scheme = (kNvfp4Static, None)

    def dequantize(
        self, weight: Tensor, scale: Tensor, total: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Do not round the weights."""
        del dtype
        exact: Tensor = dequantize_to_dtype(
            weight, scale, total, torch.float32, BLOCK, swizzle=False
        )
        return exact

    def operand(self, x: Tensor, stage: int) -> Tensor:
        """Do not round the inputs."""
        del stage
        return x.float()


PROVIDES = (CpuEmulationNvFp4Experts, CpuEmulationNvFp4W4A16Experts)


def install() -> None:
    """Let the EMULATION backend be ours: its own experts are Triton's."""
    method, backend_class = modelopt.ModelOptNvFp4FusedMoE, nvfp4_oracle.backend_to_kernel_cls
    process, emulation = (
        without_input_scales(method.process_weights_after_loading),
        nvfp4_oracle.NvFp4MoeBackend.EMULATION,
    )

    @wraps(backend_class)
    def with_cpu(backend: Any) -> list[type]:
        if backend == emulation:
            return [CpuEmulationNvFp4Experts, CpuEmulationNvFp4W4A16Experts]
        classes: list[type] = backend_class(backend)
        return classes

    nvfp4_oracle.backend_to_kernel_cls = with_cpu
    method.process_weights_after_loading = process


def without_input_scales(original: Callable[..., None]) -> Callable[..., None]:
    """Give weight-only experts an input scale of 1.

    It is never read, but the EMULATION backend merges the scales of the inputs, which such a
    checkpoint has not, and warns about what it finds.
    """

    @wraps(original)
    def process(self: Any, layer: torch.nn.Module) -> None:
        if self.use_a16:
            for name, parameter in layer.named_parameters(recurse=False):
                if name.endswith(("input_scale", "input_global_scale")):
                    parameter.data.fill_(1.0)
        original(self, layer)

    return process
