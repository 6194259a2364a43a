"""The stream of quantized tensors: read a piece of the source, quantize it, hand it on.

The order is that of the source's files, so each is read once from front to back. A fused tensor
of all experts is read and handed on expert by expert: what is in memory is one matrix and its
codes, whatever the model's size. A tensor that no layer of the plan comes from is handed on as it
is, byte for byte.

Shapes: O output features, I input features.
"""

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from harness.algorithms import power_of_two, quantize_weights
from harness.artifacts import (
    Algorithm,
    CalibrationStats,
    KvFormat,
    PlannedLinear,
    QuantizedTensor,
    QuantPlan,
)
from harness.errors import CorruptWeightError, RecipeError
from harness.formats import get_format, has_input_scale, stored_format
from harness.formats.kv import kv_scale
from harness.models import Source, TensorReader
from harness.quantize.amax import WeightGroups, input_groups, usable_range
from harness.quantize.cast import Casts

_log = logging.getLogger("harness.quantize")
_PIECE_NUMEL = 1 << 21
"""Bigger than a cache: each piece asks for the interpreter, which the model needs."""
_BITS = {
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float16: (torch.int16, 0x7C00),
    torch.float32: (torch.int32, 0x7F800000),
    torch.float64: (torch.int64, 0x7FF0000000000000),
}
"""The integer of the same size, and what infinity is as one."""


def quantize(
    source: Source,
    plan: QuantPlan,
    stats: CalibrationStats,
    *,
    device: str = "cpu",
    done: AbstractSet[str] = frozenset(),
) -> Iterator[QuantizedTensor]:
    """Yield every tensor of the checkpoint, each with the source tensor it comes from.

    Args:
        source: the unquantized model.
        plan: what becomes of each weight.
        stats: largest absolute values.
        device: torch device that computes; what is yielded lies on the CPU.
        done: Linear.name of layers whose weights were quantized before, of which only the scales
            of their inputs are yielded; and source tensors that were handed on before.

    Raises:
        CorruptWeightError: a weight is NaN or infinite.
        RecipeError: the plan quantizes a part of a tensor only.
        RejectedError: calibration never saw a planned layer, or saw only zeros.
    """
    weights = WeightGroups.of(plan.quantized, stats.weight_amax)
    inputs = input_groups(plan, stats)
    members = plan.by_source()
    _refuse_parts(source, members)
    with TensorReader(source) as reader:
        casts = Casts(source, plan, reader)
        for index, name in enumerate(source.tensors):
            for planned in members.get(name, ()):
                if planned.linear.name not in done:
                    weight_OI = _read(reader, planned, device)
                    cast = casts.of(planned, weight_OI)
                    amax = weights.for_weight(planned)
                    yield _stored(
                        planned, cast or _quantized(planned, weight_OI, amax, plan.algorithm)
                    )
            yield from _input_scales(name, members.get(name, ()), inputs)
            if name not in members and name not in done:
                yield _as_it_is(reader, name, stats.folded.get(name))
            _report(index + 1, len(source.tensors))
    yield from _kv_scales(plan, stats)


def unquantized(source: Source, plan: QuantPlan) -> Sequence[str]:
    """Return the tensors of the source that no layer of the plan comes from, biggest first."""
    members = plan.by_source()
    names = (name for name in source.tensors if name not in members)
    return sorted(names, key=lambda name: -source.tensors[name].num_bytes)


def read_unquantized(source: Source, names: Iterable[str]) -> Iterator[QuantizedTensor]:
    """Yield tensors of the source unchanged; a thread may do so beside others.

    Raises:
        CorruptWeightError: a weight is NaN or infinite.
    """
    with TensorReader(source) as reader:
        for name in names:
            yield _as_it_is(reader, name)


def _as_it_is(
    reader: TensorReader, name: str, exponents: Sequence[int] | None = None
) -> QuantizedTensor:
    """Read a tensor, and multiply it with 2^k along its last dimension, where that was folded."""
    tensor = reader.tensor(name)
    _refuse_non_finite(name, tensor)
    if exponents is not None:
        tensor = tensor * power_of_two(torch.tensor(exponents)).to(tensor.dtype)
    return QuantizedTensor(source=name, tensors={name: tensor}, format="none")


def _refuse_parts(source: Source, members: Mapping[str, Sequence[PlannedLinear]]) -> None:
    """Refuse to quantize a part of a tensor."""
    for name, layers in members.items():
        num_planned = sum(math.prod(planned.linear.shape) for planned in layers)
        num_weights = math.prod(source.tensors[name].shape)
        if num_planned != num_weights:
            message = (
                f"the plan quantizes {num_planned} of the {num_weights} weights in '{name}'. "
                "Let the rules reach all of it or none."
            )
            raise RecipeError(message)


def _read(reader: TensorReader, planned: PlannedLinear, device: str) -> Tensor:
    weight_OI = reader.matrix(planned.linear.source).to(device)
    _refuse_non_finite(planned.linear.name, weight_OI)
    return weight_OI


def _quantized(
    planned: PlannedLinear, weight_OI: Tensor, amax: float, algorithm: Algorithm
) -> Mapping[str, Tensor]:
    linear = planned.linear
    is_chosen = algorithm.chooses_numbers or algorithm.needs_inputs
    if is_chosen and planned.weight_format == Algorithm.FORMAT:
        return _by_algorithm(planned, weight_OI, amax, algorithm)
    number_format = stored_format(planned.weight_format, is_routed=linear.is_routed)
    return number_format.quantize_weight(weight_OI, amax=amax)


def _by_algorithm(
    planned: PlannedLinear, weight_OI: Tensor, amax: float, algorithm: Algorithm
) -> Mapping[str, Tensor]:
    if algorithm.needs_inputs:
        message = (
            f"the recipe's algorithm ({algorithm}) needs a weight and its inputs together, and "
            f"'{planned.linear.name}' is read by itself: it lies outside the decoder layers, or "
            "its file has another type than most. Exclude it, or choose another algorithm."
        )
        raise RecipeError(message)
    stored_E = quantize_weights(weight_OI.unsqueeze(0), algorithm, amax=[amax])
    return {suffix: tensor_E[0] for suffix, tensor_E in stored_E.items()}


def _stored(planned: PlannedLinear, stored: Mapping[str, Tensor]) -> QuantizedTensor:
    linear = planned.linear
    tensors = {f"{linear.name}.{suffix}": t.cpu() for suffix, t in stored.items()}
    return QuantizedTensor(linear.source.tensor, tensors, planned.weight_format)


def _input_scales(
    source: str, layers: Sequence[PlannedLinear], amax: Mapping[str, float]
) -> Iterator[QuantizedTensor]:
    """Yield the scales of the inputs of all layers that come from one tensor, together."""
    scales: dict[str, dict[str, Tensor]] = defaultdict(dict)
    made: dict[tuple[str, float], Tensor] = {}
    for planned in layers:
        if (name := planned.input_format) is not None and has_input_scale(name):
            one = name, amax[planned.linear.group]
            if one not in made:  # all experts of a projection have the same
                made[one] = get_format(name).input_scale(one[1])
            scales[name][f"{planned.linear.name}.input_scale"] = made[one]
    for name, tensors in scales.items():
        yield QuantizedTensor(source=source, tensors=tensors, format=name)


def _kv_scales(plan: QuantPlan, stats: CalibrationStats) -> Iterator[QuantizedTensor]:
    """Yield the scales of keys and values, which belong to no tensor of the source."""
    if not KvFormat(plan.kv_cache).has_scales:
        return
    for attention in plan.attentions:
        k_amax = usable_range(stats.input_amax, attention.k_quantizer)
        v_amax = usable_range(stats.input_amax, attention.v_quantizer)
        tensors = {
            f"{attention.name}.k_proj.k_scale": kv_scale(k_amax),
            f"{attention.name}.v_proj.v_scale": kv_scale(v_amax),
        }
        yield QuantizedTensor(source=attention.name, tensors=tensors, format="fp8")


def _refuse_non_finite(name: str, tensor: Tensor) -> None:
    if tensor.dtype in _BITS and tensor.numel() and not _is_finite(tensor.reshape(-1)):
        message = f"'{name}' holds NaN or infinity. The source model is damaged: download it again."
        raise CorruptWeightError(message)


def _is_finite(flat: Tensor) -> bool:
    """Look at all values of one dimension.

    On the CPU with numpy, which uses one thread and lets others run: a thread calls this while the
    model runs, and a second pool of torch's threads halves the speed of the first for as long as it
    exists.
    """
    if flat.device.type != "cpu":
        low, high = torch.aminmax(flat)  # NaN wins
        return math.isfinite(low) and math.isfinite(high)
    integer, infinity = _BITS[flat.dtype]
    sign = torch.iinfo(integer).min
    for piece in torch.split(flat.view(integer), _PIECE_NUMEL):
        # Without the sign, NaN and infinity are the largest numbers.
        if int((piece.numpy() & ~sign).max()) >= infinity:
            return False
    return True


def _report(num_done: int, num_tensors: int) -> None:
    if num_done * 10 // num_tensors > (num_done - 1) * 10 // num_tensors:
        _log.info("quantize: %d of %d source tensors", num_done, num_tensors)
