"""The linear kernel for static FP8 that vLLM's CPU build lacks.

Shape suffixes: N rows, I inputs, O outputs.
"""

from typing import Any

import torch
import vllm.model_executor.kernels.linear as kernels
from torch import Tensor
from vllm.model_executor.kernels.linear.scaled_mm import (
    FP8ScaledMMLinearKernel,
    FP8ScaledMMLinearLayerConfig,
)
from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8StaticTensorSym
from vllm.platforms import PlatformEnum

from .cpu_linear import WEIGHT, product
from .rounding import quantize_fp8


class CpuEmulationFp8LinearKernel(FP8ScaledMMLinearKernel):  # type: ignore[misc]  # vllm is untyped here
    """FP8 with one static scale for inputs and one for weights: scales multiply the float32 sum.

    It stands before vLLM's own CPU kernels, of which one leaves inputs in bfloat16 on machines
    with AMX: the arithmetic would depend on the machine.
    """

    @classmethod
    def is_supported(cls, compute_capability: int | None = None) -> tuple[bool, str | None]:
        """Return whether this machine can run it: always."""
        del compute_capability
        return True, None

    @classmethod
    def can_implement(cls, c: FP8ScaledMMLinearLayerConfig) -> tuple[bool, str | None]:
        """Return whether it computes this layer, and else the reason."""
        if (c.weight_quant_key, c.activation_quant_key) == (
            kFp8StaticTensorSym,
            kFp8StaticTensorSym,
        ):
            return True, None
        return False, "requires one static scale for weights and one for inputs"

    def process_weights_after_loading(self, layer: Any) -> None:
        """Keep the codes as float32; `layer.weight` is [I, O] here, with one scale."""
        layer.register_buffer(WEIGHT, layer.weight.data.t().float(), persistent=False)

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x W^T + bias in the type of `x`."""
        codes = quantize_fp8(x, layer.input_scale)
        return self.apply_scaled_mm(
            A=codes,
            B=layer.get_buffer(WEIGHT).t(),
            out_dtype=x.dtype,
            As=layer.input_scale,
            Bs=layer.weight_scale,
            bias=bias,
        )

    def apply_scaled_mm(  # noqa: PLR0913  vLLM's signature
        self,
        *,
        A: Tensor,
        B: Tensor,
        out_dtype: torch.dtype,
        As: Tensor,
        Bs: Tensor,
        bias: Tensor | None,
        output_shape: list[int] | None = None,
    ) -> Tensor:
        """Return (A B) As Bs + bias for codes A [N, I] and B [I, O], as vLLM's base class asks."""
        total = product(A, B.t().float(), out_dtype, bias, As * Bs)
        return total if output_shape is None else total.view(*output_shape)


PROVIDES = (CpuEmulationFp8LinearKernel,)


def install() -> None:
    """Enter it into vLLM's list before all others."""
    kernels._POSSIBLE_FP8_KERNELS[PlatformEnum.CPU].insert(0, CpuEmulationFp8LinearKernel)
