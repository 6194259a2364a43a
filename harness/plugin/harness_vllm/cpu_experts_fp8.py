"""FP8 experts that vLLM's CPU build lacks: one static scale an expert."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe.modular_kernel import FusedMoEActivationFormat
from vllm.model_executor.layers.fused_moe.oracle.fp8 import Fp8MoeBackend
from vllm.model_executor.layers.quantization import modelopt
from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8StaticTensorSym

from .cpu_experts import CpuEmulationExperts
from .rounding import quantize_fp8


class CpuEmulationFp8Experts(CpuEmulationExperts):
    """FP8 with static scales; weights keep the scale that vLLM requantized gate and up to."""

    scheme = (kFp8StaticTensorSym, kFp8StaticTensorSym)

    def dequantize(
        self, weight: Tensor, scale: Tensor, total: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return the codes: the scales multiply the sums."""
        del scale, total, dtype
        return weight.float()

    def operand(self, x: Tensor, stage: int) -> Tensor:
        """Return the codes of the inputs."""
        return quantize_fp8(x, self.a2_scale if stage else self.a1_scale).float()

    def output_scale(self, stage: int) -> Tensor | None:
        """Return the product of the inputs' and the weights' scale, [E]."""
        scale: Tensor = self.a2_scale * self.w2_scale if stage else self.a1_scale * self.w1_scale
        return scale


PROVIDES = (CpuEmulationFp8Experts,)


def install() -> None:
    """Let the choice of a backend for modelopt's FP8 find ours."""
    modelopt.select_fp8_moe_backend = with_cpu(modelopt.select_fp8_moe_backend)


def with_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    """Give our experts where vLLM would find none: on CPU it returns no backend and fails later."""
    emulation = Fp8MoeBackend.EMULATION

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
            return emulation, CpuEmulationFp8Experts
        return original(config, weight_key, activation_key, **kwargs)

    return select
