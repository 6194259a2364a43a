"""What the experts that vLLM's CPU build lacks share.

Shape suffixes: T tokens, S token slots (T times experts a token), I hidden size, J intermediate
size, E experts.

vLLM's loaders, its merging of scales and its routing run as on a GPU; only the two matrix
products are ours. Order of roundings, from vLLM's Triton experts: inputs to the format, float32
sum, to the model's type, the activation to the model's type times the other half, to the format,
float32 sum times the router's weight, to the model's type, sum over the experts of a token.
"""

from abc import abstractmethod
from itertools import pairwise
from typing import Any, ClassVar

import torch
import vllm.model_executor.layers.fused_moe.modular_kernel as mk
from torch import Tensor
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.topk_weight_and_reduce import TopKWeightAndReduceNoOP

from .cpu_activations import SUPPORTED, activate, gating_of


class CpuEmulationExperts(mk.FusedMoEExpertsModular):  # type: ignore[misc]  # vllm is untyped here
    """What the three formats share: one loop over the experts that have tokens."""

    scheme: ClassVar[tuple[Any, Any]]
    """vLLM's keys of the weights' and the inputs' quantization."""
    _weights: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def dequantize(
        self, weight: Tensor, scale: Tensor, total: Tensor, dtype: torch.dtype
    ) -> Tensor:
        """Return float32 weights [E, out, in]; `total` is the scale of a whole matrix, [E]."""

    @abstractmethod
    def operand(self, x: Tensor, stage: int) -> Tensor:
        """Return the inputs of product 0 or 1 as float32, rounded to the format."""

    def output_scale(self, stage: int) -> Tensor | None:
        """Return what multiplies the sums of product 0 or 1, [E]; None is 1."""
        del stage
        return None

    def apply(
        self, output: Tensor, hidden_states: Tensor, w1: Tensor, w2: Tensor, **rest: Any
    ) -> None:
        """Write the experts' weighted sum [T, I] into `output`."""
        if self._weights is None:
            self._weights = self._dequantized(w1, w2, hidden_states.dtype)
        ids_TK, dtype = rest["topk_ids"], hidden_states.dtype
        order_S = ids_TK.flatten().argsort(stable=True)
        ends = ids_TK.flatten().bincount(minlength=w1.shape[0]).cumsum(0).tolist()
        bounds = [0, *ends]

        x_TI = self.operand(hidden_states, 0)
        sums_S2J = self._products(x_TI[order_S // ids_TK.shape[1]], bounds, 0).to(dtype)
        gating = gating_of(self.moe_config, self.quant_config)
        active_SJ = activate(rest["activation"], sums_S2J, gating)
        sums_SI = self._products(self.operand(active_SJ, 1), bounds, 1)
        if not rest["apply_router_weight_on_input"]:
            sums_SI = sums_SI * rest["topk_weights"].flatten()[order_S].float().unsqueeze(-1)
        placed_SI = torch.empty_like(sums_SI, dtype=dtype)
        placed_SI[order_S] = sums_SI.to(dtype)
        output.copy_(placed_SI.reshape(*ids_TK.shape, -1).float().sum(dim=1))

    def _dequantized(self, w1: Tensor, w2: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        first = self.dequantize(w1, self.w1_scale, self.g1_alphas, dtype)
        return first, self.dequantize(w2, self.w2_scale, self.g2_alphas, dtype)

    def _products(self, x_S: Tensor, bounds: list[int], stage: int) -> Tensor:
        """Return each slot's row times its expert's matrix, float32; slots are sorted by expert."""
        if self._weights is None:
            raise RuntimeError
        weights, scale_E = self._weights[stage], self.output_scale(stage)
        sums = x_S.new_empty(x_S.shape[0], weights.shape[1])
        for expert, (start, end) in enumerate(pairwise(bounds)):
            if start < end:
                torch.mm(x_S[start:end], weights[expert].t(), out=sums[start:end])
                if scale_E is not None:
                    sums[start:end] *= scale_E[expert]
        return sums

    @staticmethod
    def is_supported_config(
        cls: type["CpuEmulationExperts"],  # noqa: PLW0211 -- so vLLM declares and calls it
        moe_config: Any,
        *args: Any,
    ) -> tuple[bool, str | None]:
        """Return whether this layer can be computed, and else the reason."""
        if moe_config.has_bias:
            return False, "kernel supports no bias"
        supported: tuple[bool, str | None] = mk.FusedMoEExperts.is_supported_config(
            cls, moe_config, *args
        )
        return supported

    @property
    def expects_unquantized_inputs(self) -> bool:
        """The inputs are rounded here, not before."""
        return True

    @staticmethod
    def activation_format() -> mk.FusedMoEActivationFormat:
        """Tokens in one batch, not one an expert."""
        return mk.FusedMoEActivationFormat.Standard

    @staticmethod
    def _supports_current_device() -> bool:
        return True

    @staticmethod
    def _supports_no_act_and_mul() -> bool:
        return False

    @classmethod
    def _supports_quant_scheme(cls, weight_key: object, activation_key: object) -> bool:
        return (weight_key, activation_key) == cls.scheme

    @staticmethod
    def _supports_activation(activation: MoEActivation) -> bool:
        return activation in SUPPORTED

    @staticmethod
    def _supports_parallel_config(moe_parallel_config: Any) -> bool:
        return bool(moe_parallel_config.ep_size == 1)

    def finalize_weight_and_reduce_impl(self) -> mk.TopKWeightAndReduce:
        """Nothing is left to do: `apply` has weighted and summed."""
        return TopKWeightAndReduceNoOP()

    def workspace_shapes(
        self,
        M: int,
        N: int,  # noqa: ARG002 -- vLLM's signature
        K: int,
        *_: object,
        **__: object,
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """No workspace; the output is [T, I]."""
        return (0,), (0,), (M, K)
