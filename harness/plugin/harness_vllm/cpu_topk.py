"""The choice of experts for a token, where vLLM's CPU build calls an operator that it lacks.

Up to 0.29 the routers of experts that are not the CPU's own call CUDA's operator; later ones have a
router for CPU. Shape suffixes: T tokens, E experts, K experts of a token.

Source: csrc/libtorch_stable/moe/topk_softmax_kernels.cu of vLLM 0.28.0.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import vllm._custom_ops as ops
from torch import Tensor

_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "topk_softmax": lambda logits_TE: logits_TE.float().softmax(dim=-1),
    "topk_sigmoid": lambda logits_TE: logits_TE.float().sigmoid(),
}


def install() -> None:
    """Compute in torch what has no operator on CPU; what has one is left alone."""
    for name, scores in _SCORES.items():
        if not _has_kernel(f"_moe_C::{name}"):
            setattr(ops, name, _in_torch(getattr(ops, name), scores))


def _has_kernel(operator: str) -> bool:
    try:
        found: bool = torch._C._dispatch_has_kernel_for_dispatch_key(operator, "CPU")
    except RuntimeError:  # there is no such operator at all
        return False
    return found


def _in_torch(
    original: Callable[..., None], scores: Callable[[Tensor], Tensor]
) -> Callable[..., None]:
    @wraps(original)
    def choose(  # noqa: PLR0913, PLR0917 -- vLLM's signature
        topk_weights: Tensor,
        topk_ids: Tensor,
        token_expert_indices: Tensor,
        gating_output: Tensor,
        renormalize: bool = False,  # noqa: FBT001, FBT002 -- vLLM's signature
        e_score_correction_bias: Tensor | None = None,
        routed_scaling_factor: float = 1.0,
        **rest: Any,
    ) -> None:
        """Fill the first three, [T, K]; rows of padding are filled like all others."""
        rest.pop("is_padding", None)
        if rest:
            message = f"{original.__name__} is asked for {sorted(rest)}, which is not known here"
            raise NotImplementedError(message)
        scores_TE = scores(gating_output)
        weights_TK, ids_TK = top_k(scores_TE, topk_ids.shape[-1], e_score_correction_bias)
        if renormalize:
            weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        topk_weights.copy_(weights_TK * routed_scaling_factor)
        topk_ids.copy_(ids_TK)
        places_KT = torch.arange(ids_TK.numel(), device=ids_TK.device).view(ids_TK.shape[::-1])
        token_expert_indices.copy_(places_KT.t())

    return choose


def top_k(scores_TE: Tensor, k: int, bias_E: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the scores and numbers of the best experts, [T, K]; a bias counts in the choice alone.

    Of equal scores the lower number comes first, as in the kernel.
    """
    chosen_by_TE = scores_TE if bias_E is None else scores_TE + bias_E.float()
    ids_TK = chosen_by_TE.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return scores_TE.gather(-1, ids_TK), ids_TK
