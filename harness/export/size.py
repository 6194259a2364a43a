"""What a checkpoint will hold and how big it will be, from the plan and the headers alone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from harness.artifacts import KvFormat, PlannedLinear, QuantPlan, TensorType
from harness.formats import INPUT_TENSORS, Format, has_input_scale, stored_format
from harness.models import Source, sidecars

_HEADER_BYTES = 160
"""Of one tensor in a shard's header and in the index, about."""
_CONFIG_BYTES = 100_000
"""Of both configurations and the manifest, about."""
_MIN_SHARD_BYTES = 2**29
_MAX_SHARDS = 256


def early_tensors(source: Source, plan: QuantPlan) -> Iterator[tuple[str, TensorType]]:
    """Yield what may be written before calibration has ended: quantized weights, then what stays.

    Each as in the source's files, but all experts of a projection where the first one lies. So
    files of weights are full, and read back, while others are not yet known.
    """
    members = plan.by_source()
    for planned in _experts_together(members.get(name, ()) for name in source.tensors):
        stored = _format(planned).weight_tensors(planned.linear.shape)
        yield from _named(planned.linear.name, stored)
    for name, header in source.tensors.items():
        if name not in members:
            yield name, TensorType(header.dtype, header.shape)


def _experts_together(planned: Iterable[Iterable[PlannedLinear]]) -> Iterator[PlannedLinear]:
    """Yield all experts of a projection, one after the other: they are written with one call."""
    together: dict[object, list[PlannedLinear]] = defaultdict(list)
    for one in chain.from_iterable(planned):
        linear = one.linear
        kind = (linear.experts, linear.name.rpartition(".")[2]) if linear.is_routed else linear.name
        together[kind].append(one)
    return chain.from_iterable(together.values())


def late_tensors(source: Source, plan: QuantPlan) -> Iterator[tuple[str, TensorType]]:
    """Yield the tensors that are known only when calibration has ended: scales of a few bytes."""
    members = plan.by_source()
    for planned in chain.from_iterable(members.get(name, ()) for name in source.tensors):
        yield from _named(planned.linear.name, _input_tensors(planned))
    if KvFormat(plan.kv_cache).has_scales:
        for attention in plan.attentions:
            yield f"{attention.name}.k_proj.k_scale", TensorType("F32", ())
            yield f"{attention.name}.v_proj.v_scale", TensorType("F32", ())


def _format(planned: PlannedLinear) -> Format:
    return stored_format(planned.weight_format, is_routed=planned.linear.is_routed)


def _input_tensors(planned: PlannedLinear) -> Mapping[str, TensorType]:
    return INPUT_TENSORS if has_input_scale(planned.input_format) else {}


def _named(linear: str, tensors: Mapping[str, TensorType]) -> Iterator[tuple[str, TensorType]]:
    return ((f"{linear}.{suffix}", tensor) for suffix, tensor in tensors.items())


def required_bytes(source: Source, plan: QuantPlan) -> int:
    """Return the size of the whole checkpoint; tensors and copied files exactly, headers about."""
    stored = [*early_tensors(source, plan), *late_tensors(source, plan)]
    copied = sum(path.stat().st_size for path in sidecars(source.path).values())
    tensors = sum(tensor.num_bytes for _, tensor in stored)
    return tensors + copied + _HEADER_BYTES * len(stored) + _CONFIG_BYTES


def bits_per_weight(plan: QuantPlan) -> float:
    """Return stored bits, all scales included, over the weights that the plan quantizes.

    Raises:
        ZeroDivisionError: the plan quantizes nothing, which planning refuses.
    """
    num_weights = sum(p.linear.shape[0] * p.linear.shape[1] for p in plan.quantized)
    return sum(map(stored_bits, plan.quantized)) / num_weights


def stored_bits(planned: PlannedLinear) -> int:
    """Return the bits that a quantized layer takes in a checkpoint, all its scales included."""
    with_input = has_input_scale(planned.input_format)
    return 8 * _format(planned).stored_bytes(planned.linear.shape, with_input=with_input)


def shard_bytes(num_bytes: int) -> int:
    """Return the largest size of a file of weights, of a checkpoint of `num_bytes`.

    A file is hashed by one thread, so small ones take all of a machine's; all are open at a time.
    """
    return max(_MIN_SHARD_BYTES, num_bytes // _MAX_SHARDS)
