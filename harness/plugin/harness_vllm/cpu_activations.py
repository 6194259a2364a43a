"""What stands between an expert's two products, where vLLM's own is a GPU's kernel.

Computed in float32. Where vLLM rounds the activation and multiplies then (SiLU, GELU), so is it
here; where one kernel does both, it is rounded once. Shape suffixes: S token slots, J intermediate
size.

Source: vLLM 0.32.0, fused_moe/activation.py, and the kernels that it names.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from vllm.model_executor.layers.fused_moe.activation import MoEActivation

_STEP_LIMIT = 7.0
_ROUNDED: dict[MoEActivation, Callable[[Tensor], Tensor]] = {
    MoEActivation.SILU: torch.nn.functional.silu,
    MoEActivation.GELU: torch.nn.functional.gelu,
    MoEActivation.GELU_TANH: lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
}
SUPPORTED = frozenset(
    {*_ROUNDED, MoEActivation.SWIGLUOAI_UNINTERLEAVE, MoEActivation.SWIGLUSTEP},
)
"""Gated, with gate and up one behind the other."""


class Gating(NamedTuple):
    """The numbers of a gated activation; vLLM 0.28 and later have a class of their own for them."""

    clamp_limit: float | None = None
    alpha: float = 1.0
    beta: float = 0.0


def gating_of(moe_config: Any, quant_config: Any) -> Gating:
    """Return those of a layer: what its quantization says, else what the model does."""
    found: dict[str, Any] = {}
    for of_layer, of_model in (("clamp_limit", "limit"), ("alpha", "alpha"), ("beta", "beta")):
        value = getattr(quant_config, f"gemm1_{of_layer}", None)
        value = getattr(moe_config, f"swiglu_{of_model}", None) if value is None else value
        if value is not None:
            found[of_layer] = value
    return Gating(**found)


def activate(activation: MoEActivation, sums_S2J: Tensor, config: Gating) -> Tensor:
    """Return the second product's inputs [S, J], in the type of the first one's sums."""
    gate_SJ, up_SJ = sums_S2J.chunk(2, dim=-1)
    dtype, gate, up = sums_S2J.dtype, gate_SJ.float(), up_SJ.float()
    limit = config.clamp_limit
    if activation in _ROUNDED and limit is None:
        return _ROUNDED[activation](gate).to(dtype) * up_SJ
    if activation == MoEActivation.SWIGLUSTEP:
        clamped = torch.nn.functional.silu(gate).clamp(max=_STEP_LIMIT)
        return (clamped * up.clamp(-_STEP_LIMIT, _STEP_LIMIT)).to(dtype)
    if limit is None or activation not in {
        MoEActivation.SILU,
        MoEActivation.SWIGLUOAI_UNINTERLEAVE,
    }:
        message = f"{activation} with the limit {limit} is not known"
        raise ValueError(message)
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    is_plain = activation == MoEActivation.SILU
    alpha, beta = (1.0, 0.0) if is_plain else (config.alpha, config.beta)
    return (gate * torch.sigmoid(alpha * gate) * (up + beta)).to(dtype)
