"""Where the CPU kernels are put into vLLM 0.32.0: every private name that is touched.

A kernel list of vLLM gets an entry, or a function that chooses one is wrapped; nothing of the
loaders, of the scales' handling or of the routing is replaced. README.md lists the points with
the reason for each.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import vllm._custom_ops as ops
import vllm.model_executor.kernels.linear as kernels
import vllm.model_executor.layers.fused_moe.oracle.nvfp4 as nvfp4_oracle
from torch import Tensor
from vllm.model_executor.kernels.linear import NvFp4LinearLayerConfig
from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEActivationFormat
from vllm.model_executor.layers.fused_moe.oracle.fp8 import Fp8MoeBackend
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w4a4_nvfp4 as ct_nvfp4_experts,
)
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors_moe import (
    compressed_tensors_moe_w8a8_fp8 as ct_fp8_experts,
)
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    compressed_tensors_w4a4_nvfp4 as ct_linear,
)
from vllm.platforms import PlatformEnum

from .cpu_experts import (
    CpuEmulationFp8Experts,
    CpuEmulationNvFp4Experts,
    CpuEmulationNvFp4W4A16Experts,
)
from .cpu_linear import (
    CpuEmulationFp8LinearKernel,
    CpuEmulationNvFp4LinearKernel,
    CpuEmulationNvFp4W4A16LinearKernel,
)
from .rounding import quantize_fp8


def install_cpu_kernels() -> None:
    """Put every CPU kernel in its place; to be called once in a process."""
    _linear_kernels()
    _nvfp4_experts()
    _fp8_experts()
    ops.scaled_fp8_quant = _with_static_fp8_quant(ops.scaled_fp8_quant)


def _linear_kernels() -> None:
    cpu = PlatformEnum.CPU
    kernels._POSSIBLE_NVFP4_KERNELS[cpu] = [CpuEmulationNvFp4LinearKernel]
    kernels._POSSIBLE_FP8_KERNELS[cpu].insert(0, CpuEmulationFp8LinearKernel)
    kernels._LINEAR_BACKEND_KERNEL_MAP["emulation"].add(CpuEmulationNvFp4LinearKernel)
    for module in (modelopt, ct_linear):
        module.init_nvfp4_linear_kernel = _with_weight_only(module.init_nvfp4_linear_kernel)


def _with_weight_only(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give the weight-only kernel where vLLM would insist on Marlin, which is CUDA only."""

    @wraps(original)
    def init(use_a16: bool = False) -> Any:  # noqa: FBT001, FBT002 -- vLLM's signature
        if use_a16:
            return CpuEmulationNvFp4W4A16LinearKernel(NvFp4LinearLayerConfig())
        return original(use_a16=False)

    return init


def _nvfp4_experts() -> None:
    backend_class = nvfp4_oracle.backend_to_kernel_cls

    @wraps(backend_class)
    def with_cpu(backend: Any) -> list[type]:
        if backend == nvfp4_oracle.NvFp4MoeBackend.EMULATION:
            return [CpuEmulationNvFp4Experts, CpuEmulationNvFp4W4A16Experts]
        classes: list[type] = backend_class(backend)
        return classes

    nvfp4_oracle.backend_to_kernel_cls = with_cpu
    for method in (
        modelopt.ModelOptNvFp4FusedMoE,
        ct_nvfp4_experts.CompressedTensorsW4A4Nvfp4MoEMethod,
    ):
        method.process_weights_after_loading = _without_input_scales(
            method.process_weights_after_loading
        )


def _without_input_scales(original: Callable[..., None]) -> Callable[..., None]:
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


def _fp8_experts() -> None:
    for module in (modelopt, ct_fp8_experts):
        module.select_fp8_moe_backend = _with_cpu_fp8(module.select_fp8_moe_backend)


def _with_cpu_fp8(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give our experts where vLLM would find none: on CPU it returns no backend and fails later."""

    @wraps(original)
    def select(config: Any, weight_key: Any, activation_key: Any, **kwargs: Any) -> Any:
        supported, _ = CpuEmulationFp8Experts.is_supported_config(
            CpuEmulationFp8Experts,
            config,
            weight_key,
            activation_key,
            FusedMoEActivationFormat.Standard,
        )
        if supported and config.moe_backend == "auto":
            return Fp8MoeBackend.EMULATION, CpuEmulationFp8Experts
        return original(config, weight_key, activation_key, **kwargs)

    return select


def _with_static_fp8_quant(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give static quantization with one scale, by which vLLM brings fused weights to one scale."""

    @wraps(original)
    def scaled_fp8_quant(input: Tensor, scale: Tensor | None = None, **kwargs: Any) -> Any:  # noqa: A002 -- vLLM's signature
        if scale is None or scale.numel() != 1 or any(v for v in kwargs.values()):
            return original(input, scale, **kwargs)
        return quantize_fp8(input, scale), scale

    return scaled_fp8_quant
