"""The model in this process: as it is, or with weights and inputs rounded as a plan says.

Nothing here reads a checkpoint or asks an engine's loader: weights come from the source, are
quantized with the given ranges, and stand in the running model dequantized. Where the reference
engine answers otherwise with the files of the same ranges, the files or its loader are wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from harness.artifacts import CalibrationStats, KvFormat, Linear
from harness.formats.kv import qdq_kv, qdq_kv_nvfp4
from harness.localizing.case import Made, Unquantized
from harness.models import (
    TensorReader,
    experts_run,
    load_model,
    mixed_types_run,
    stored_dtype,
    tap_attention,
    tap_linears,
)
from harness.quantize import ComputedWeights, InputRounding, Stored, quantize, unquantized
from harness.serve.memory import naming_lack_of_memory, num_weights, refuse_if_too_large

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Arithmetic(NamedTuple):
    """What of the plan is computed."""

    dtype: torch.dtype = torch.float32
    inputs: bool = True
    """Whether inputs of quantized layers are rounded, where the plan says so."""
    kv: bool = True
    """The same of keys and values."""


AS_PLANNED = Arithmetic()
IN_BFLOAT16 = Arithmetic(dtype=torch.bfloat16)


def stored_of(made: Made, stats: CalibrationStats, device: str) -> Stored:
    """Quantize with the ranges of `stats`.

    Raises:
        RejectedError: they lack one, or no scale can be made of one.
    """
    plain = frozenset(unquantized(made.source, made.plan))
    parts = quantize(made.source, made.plan, stats, device=device, done=plain)
    return {name: tensor for one in parts for name, tensor in one.tensors.items()}


@contextmanager
def running(model: Unquantized, device: str) -> Iterator["PreTrainedModel"]:
    """Give the unquantized model while the context lasts, in float32.

    Raises:
        EngineError: it is larger than the memory.
    """
    with _loaded(model, device, torch.float32, None) as running:
        yield running


@contextmanager
def rounded(
    made: Made, stored: Stored, device: str, how: Arithmetic = AS_PLANNED
) -> Iterator["PreTrainedModel"]:
    """Give the model as it is with what is stored of it, while the context lasts.

    Raises:
        EngineError: it is larger than the memory.
    """
    planned = made.plan.quantized
    weights = ComputedWeights(planned, stored, stored_dtype(made.source))
    with ExitStack() as taps:
        with TensorReader(made.source) as reader:

            def matrix(linear: Linear) -> Tensor:
                computed = weights.of(linear)
                return reader.matrix(linear.source) if computed is None else computed

            model = taps.enter_context(_loaded(made, device, how.dtype, matrix))
        if how.inputs:
            taps.enter_context(tap_linears(model, InputRounding(planned, stored, device).rounded))
        if how.kv and made.plan.declares_kv:
            taps.enter_context(tap_attention(model, _kv_rounding(made, stored)))
        yield model


@contextmanager
def _loaded(
    model: Unquantized,
    device: str,
    dtype: torch.dtype,
    matrix: Callable[[Linear], Tensor] | None,
) -> Iterator["PreTrainedModel"]:
    refuse_if_too_large(num_weights(model.inventory) * dtype.itemsize, device)
    with naming_lack_of_memory(device):
        loaded = load_model(
            model.source, model.inventory, device=device, dtype=dtype, matrix=matrix
        )
    with experts_run(loaded, "eager"), mixed_types_run(loaded):
        yield loaded


def _kv_rounding(
    made: Made, stored: Stored
) -> Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    kv_cache, one = KvFormat(made.plan.kv_cache), torch.tensor(1.0)
    rounded = qdq_kv if kv_cache.algorithm == "FP8" else qdq_kv_nvfp4
    scales = {
        attention.name: (
            stored.get(f"{attention.name}.k_proj.k_scale", one),
            stored.get(f"{attention.name}.v_proj.v_scale", one),
        )
        for attention in made.plan.attentions
    }

    def round_kv(module: str, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor] | None:
        if module not in scales:
            return None
        k_scale, v_scale = scales[module]
        return rounded(k, scale=k_scale), rounded(v, scale=v_scale)

    return round_kv
