"""What a checkpoint will hold and how big it will be, from the plan and the headers alone."""

from harness.artifacts import KvFormat, QuantPlan
from harness.export.sidecars import sidecars
from harness.formats import get_format
from harness.models import Source

_HEADER_BYTES = 160
"""Of one tensor in a shard's header and in the index, about."""
_CONFIG_BYTES = 100_000
"""Of both configurations and the manifest, about."""


def expected_tensors(source: Source, plan: QuantPlan) -> frozenset[str]:
    """Return the name of every tensor that the checkpoint must have."""
    replaced = {planned.linear.source.tensor for planned in plan.quantized}
    names = {name for name in source.tensors if name not in replaced}
    for planned in plan.quantized:
        with_input = planned.input_format is not None
        suffixes = get_format(planned.weight_format).required_suffixes(with_input)
        names.update(f"{planned.linear.name}.{suffix}" for suffix in suffixes)
    if plan.kv_cache == KvFormat.FP8:
        names.update(f"{attention.name}.k_proj.k_scale" for attention in plan.attentions)
        names.update(f"{attention.name}.v_proj.v_scale" for attention in plan.attentions)
    return frozenset(names)


def required_bytes(source: Source, plan: QuantPlan) -> int:
    """Return the size of the whole checkpoint; tensors and copied files exactly, headers about."""
    replaced = {planned.linear.source.tensor for planned in plan.quantized}
    kept = sum(h.num_bytes for name, h in source.tensors.items() if name not in replaced)
    copied = sum(path.stat().st_size for path in sidecars(source.path).values())
    headers = _HEADER_BYTES * len(expected_tensors(source, plan))
    return kept + _quantized_bytes(plan) + copied + headers + _CONFIG_BYTES


def bits_per_weight(plan: QuantPlan) -> float:
    """Return stored bits, all scales included, over the weights that the plan quantizes.

    Raises:
        ZeroDivisionError: the plan quantizes nothing, which planning refuses.
    """
    num_weights = sum(p.linear.shape[0] * p.linear.shape[1] for p in plan.quantized)
    return 8 * _quantized_bytes(plan) / num_weights


def _quantized_bytes(plan: QuantPlan) -> int:
    return sum(
        get_format(planned.weight_format).stored_bytes(
            planned.linear.shape, with_input=planned.input_format is not None
        )
        for planned in plan.quantized
    )
