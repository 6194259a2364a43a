"""vLLM with a fault: every FP8 expert of a layer computes with the first one's weight scale.

A general plugin of vLLM, on its path in a drill alone. vLLM's own function runs, and what it
returns is spoiled: codes stay those of each expert's own scale.
"""

from functools import wraps
from typing import Any

from torch import Tensor


def register() -> None:
    """Spoil this process's vLLM; a second call does nothing more."""
    from vllm.model_executor.layers.quantization import modelopt  # noqa: PLC0415 -- vLLM's alone

    original = modelopt.process_fp8_weight_tensor_strategy_moe
    if hasattr(original, "harness_drill"):
        return

    @wraps(original)
    def process(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401 -- passed on
        weight, scale_E = original(*args, **kwargs)
        return weight, scale_E[:1].repeat(scale_E.shape[0])

    process.harness_drill = True  # type: ignore[attr-defined]  # marks that the work is done
    modelopt.process_fp8_weight_tensor_strategy_moe = process
