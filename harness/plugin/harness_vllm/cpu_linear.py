"""Linear kernels that vLLM's CPU build lacks: NVFP4 (W4A4 and weight-only) and static FP8.

Shape suffixes: T tokens, I inputs, O outputs.

Each kernel dequantizes its weight once, after vLLM has loaded it and merged its scales, and keeps
it in float32: float32 holds the values of every format exactly, and a product of two rounded
operands summed in float32 is what the GPU computes. Only the inputs are rounded on each call.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.kernels.linear.nvfp4.emulation import EmulationNvFp4LinearKernel
from vllm.model_executor.kernels.linear.scaled_mm import (
    FP8ScaledMMLinearKernel,
    FP8ScaledMMLinearLayerConfig,
)
from vllm.model_executor.layers.quantization.utils.nvfp4_emulation_utils import dequantize_to_dtype
from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8StaticTensorSym

from .rounding import BLOCK, qdq_nvfp4, quantize_fp8

_WEIGHT = "harness_weight_OI"


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
        layer.register_buffer(_WEIGHT, weight_OI.float(), persistent=False)

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x W^T + bias in the type of `x`."""
        return _product(self.rounded(layer, x), layer.get_buffer(_WEIGHT), x.dtype, bias)

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
        layer.register_buffer(_WEIGHT, layer.weight.data.t().float(), persistent=False)

    def apply_weights(self, layer: Any, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x W^T + bias in the type of `x`."""
        codes = quantize_fp8(x, layer.input_scale)
        return self.apply_scaled_mm(
            A=codes,
            B=layer.get_buffer(_WEIGHT).t(),
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
        total = _product(A, B.t().float(), out_dtype, bias, As * Bs)
        return total if output_shape is None else total.view(*output_shape)


def _product(
    x: Tensor,
    weight_OI: Tensor,
    dtype: torch.dtype,
    bias: Tensor | None,
    scale: Tensor | None = None,
) -> Tensor:
    """Return (x W^T) scale + bias, summed in float32, rounded once to `dtype`."""
    total = torch.nn.functional.linear(x.float(), weight_OI)
    if scale is not None:
        total = total * scale
    if bias is not None:
        total = total + bias.float()
    return total.to(dtype)
