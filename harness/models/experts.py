"""Run all experts of a layer in two grouped products: one more way in transformers' own registry.

transformers' way passes over the outputs of all experts, the biggest tensors of the whole model,
some four times more: it weights them, masks them, sorts them back and adds them up. Here one step
does that, without rounding what it adds up: on a GPU a kernel, for torch's embedding bag takes
several times what reading the rows takes.

Shapes: N tokens, K experts of a token, S = N * K rows, E experts, H hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness.kernels import triton_module

GROUPED = "harness_grouped"
"""Its name in the registry."""
_THEIRS = "grouped_mm"
_HALVES = (torch.bfloat16, torch.float16)
_MOST_ON_A_GPU = 1023
"""Experts; torch's kernel refuses more groups."""

_Experts = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def register_grouped() -> None:
    """Make `GROUPED` known to transformers."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # noqa: PLC0415 -- takes seconds

    ALL_EXPERTS_FUNCTIONS.register(GROUPED, run_grouped)


def run_grouped(
    experts: nn.Module, hidden_NH: Tensor, experts_NK: Tensor, weights_NK: Tensor
) -> Tensor:
    """Return the weighted sum of the chosen experts' outputs [N, H].

    Experts that are not understood run as transformers has it; more than a GPU's product takes run
    one by one.
    """
    module: Any = experts
    if _are_too_many(module.num_experts, hidden_NH):
        one_by_one: _Experts = type(module).forward.__wrapped__
        return one_by_one(module, hidden_NH, experts_NK, weights_NK)
    if not _is_understood(module, hidden_NH):
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # noqa: PLC0415 -- takes seconds

        theirs: _Experts = ALL_EXPERTS_FUNCTIONS[_THEIRS]
        return theirs(module, hidden_NH, experts_NK, weights_NK)
    num_experts_each = experts_NK.shape[1]
    expert_S, order_S = torch.sort(experts_NK.reshape(-1))
    numbers_E = torch.arange(module.num_experts, device=expert_S.device)
    ends_E = torch.searchsorted(expert_S, numbers_E, right=True, out_int32=True)
    run = _Products(module, expert_S, ends_E)
    rows_SH = hidden_NH[order_S // num_experts_each]
    if module.has_gate:
        middle_SI = module._apply_gate(run.product(rows_SH, "gate_up_proj"))  # noqa: SLF001  # transformers' name
    else:
        middle_SI = module.act_fn(run.product(rows_SH, "up_proj"))
    output_SH = run.product(middle_SI, "down_proj")
    place_S = torch.empty_like(order_S)
    place_S[order_S] = torch.arange(len(order_S), device=order_S.device)
    places_NK = place_S.view(experts_NK.shape)
    if weights_NK.dtype != output_SH.dtype:  # else weights would be rounded
        weighted_NKH = output_SH[places_NK] * weights_NK.unsqueeze(-1)
        return weighted_NKH.sum(dim=1).to(hidden_NH.dtype)
    kernels = triton_module("harness.models.experts_triton", output_SH.device)
    if kernels is not None and output_SH.dtype in _HALVES:
        sum_NH: Tensor = kernels.weighted_sum(output_SH, places_NK, weights_NK)
        return sum_NH
    return nn.functional.embedding_bag(
        places_NK, output_SH, per_sample_weights=weights_NK, mode="sum"
    )


def _are_too_many(num_experts: int, hidden_NH: Tensor) -> bool:
    return hidden_NH.is_cuda and num_experts > _MOST_ON_A_GPU


def _is_understood(module: Any, hidden_NH: Tensor) -> bool:  # noqa: ANN401  # of any family
    if not hasattr(nn.functional, "grouped_mm") or getattr(module, "_is_expert_parallel", False):
        return False
    if hidden_NH.is_cuda and torch.cuda.get_device_capability(hidden_NH.device) < (8, 0):
        return False
    is_same_type: bool = hidden_NH.dtype == module.down_proj.dtype  # else there is no such product
    return is_same_type


class _Products:
    """Products of rows, sorted by expert, with all experts' weights."""

    def __init__(self, module: Any, expert_S: Tensor, ends_E: Tensor) -> None:  # noqa: ANN401  # as above
        self._module, self._expert_S, self._ends_E = module, expert_S, ends_E

    def product(self, rows_SI: Tensor, parameter: str) -> Tensor:
        """Return the rows' outputs [S, O] of a projection."""
        weight = getattr(self._module, parameter)
        weight_EIO = weight if self._module.is_transposed else weight.transpose(1, 2)
        output_SO = nn.functional.grouped_mm(rows_SI, weight_EIO, offs=self._ends_E)
        if self._module.has_bias:
            output_SO = output_SO + getattr(self._module, f"{parameter}_bias")[self._expert_S]
        return output_SO
