"""The CPU kernels beside vLLM's own functions, on the layers of a loaded model.

Runs in vLLM's environment. Each comparison is a slow, plain formula in float64 around vLLM's
reference functions; the result is the mean absolute difference as a share of the mean magnitude.
"""

from typing import Any

import torch
from torch import Tensor, nn
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.quantization.input_quant_fp8 import QuantFP8
from vllm.model_executor.layers.quantization.utils import nvfp4_emulation_utils as emulation
from vllm.model_executor.layers.quantization.utils.quant_utils import GroupShape


def compare(model: nn.Module) -> dict[str, float]:
    """Return the difference for the first quantized linear layer and the first experts."""
    torch.manual_seed(0)
    linear = next(
        m for m in model.modules() if isinstance(m, LinearBase) and hasattr(m, "harness_weight_OI")
    )
    experts = next(m for m in model.modules() if isinstance(m, RoutedExperts))
    return {"linear": linear_difference(linear), "experts": experts_difference(experts)}


def linear_difference(layer: Any) -> float:  # noqa: ANN401 -- vllm is untyped
    x = torch.randn(64, layer.harness_weight_OI.shape[1], dtype=torch.bfloat16) * 2
    ours = layer.quant_method.apply(layer, x)
    if layer.weight.dtype == torch.uint8:
        scale = getattr(layer, "input_global_scale_inv", None)
        total, stored = layer.weight_global_scale, torch.float32 if scale is None else x.dtype
        weight = weight_of(layer.weight, layer.weight_scale, total, stored)
        return difference(ours, nvfp4(x, scale).double() @ weight.double().t())
    scale = layer.input_scale * layer.weight_scale
    codes = fp8(x, layer.input_scale).double()
    return difference(ours, codes @ layer.weight.double() * scale.double())


def experts_difference(layer: Any) -> float:  # noqa: ANN401 -- vllm is untyped
    """Go through the tokens one at a time and through each token's experts."""
    config, dtype = layer.quant_method.moe_quant_config, torch.bfloat16
    weight_only = getattr(layer.quant_method, "use_a16", False)
    stored = torch.float32 if weight_only else dtype
    x = torch.randn(24, layer.hidden_size, dtype=dtype)
    weights = torch.rand(24, 4)
    ids = torch.stack([torch.randperm(layer.global_num_experts)[:4] for _ in range(24)])
    ours = layer.quant_method.apply(layer, x, weights, ids, None, None)
    matrices = [
        matrix.double()
        for matrix in (
            weight_of(layer.w13_weight, layer.w13_weight_scale, config.g1_alphas, stored),
            weight_of(layer.w2_weight, layer.w2_weight_scale, config.g2_alphas, stored),
        )
    ]
    rows = []
    for token in range(24):
        total = torch.zeros(layer.hidden_size, dtype=torch.float64)
        for slot, expert in enumerate(ids[token].tolist()):
            first, second = matrices[0][expert], matrices[1][expert]
            hidden = (first @ rounded(x[token], None if weight_only else config, 0).double()).to(
                dtype
            )
            gate, up = hidden.chunk(2)
            active = torch.nn.functional.silu(gate.float()).to(dtype) * up
            down = second @ rounded(active, None if weight_only else config, 1).double()
            total += (down * weights[token, slot]).to(dtype).double()
        rows.append(total)
    return difference(ours, torch.stack(rows))


def weight_of(weight: Tensor, scale: Tensor, total: Tensor | None, dtype: torch.dtype) -> Tensor:
    if weight.dtype == torch.uint8:
        result: Tensor = emulation.dequantize_to_dtype(
            weight, scale, total, dtype, 16, swizzle=False
        )
        return result
    return weight.double() * scale.double()[:, None, None]


def rounded(x: Tensor, config: Any, stage: int) -> Tensor:  # noqa: ANN401 -- vllm is untyped
    if config is None:
        return x
    if config.w1_scale is not None and config.w1_scale.ndim == 1:
        scale: Tensor = (config.a1_scale, config.a2_scale)[stage]
        return fp8(x[None], scale)[0].float() * scale
    return nvfp4(x[None], (config.a1_gscale, config.a2_gscale)[stage])[0]


def nvfp4(x: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None:
        return x
    result: Tensor = emulation.ref_nvfp4_quant_dequant(x, scale, 16)
    return result


def fp8(x: Tensor, scale: Tensor) -> Tensor:
    quantize = QuantFP8.forward_native
    holder = QuantFP8.__new__(QuantFP8)
    torch.nn.Module.__init__(holder)
    holder.static, holder.group_shape = True, GroupShape.PER_TENSOR
    holder.is_group_quant, holder.num_token_padding = False, None
    codes: Tensor = quantize(holder, x, scale)[0]
    return codes


def difference(ours: Tensor, theirs: Tensor) -> float:
    return ((ours.double() - theirs).abs().mean() / theirs.abs().mean()).item()
