"""The list of modules that an engine must not take for quantized.

Engines read it in three ways at once, and each can hit too much. vLLM (0.25.0 to 0.33.0 alike)
leaves a layer unquantized if an entry, without its final `*`, is a *part* of the layer's name, or
if the entry matches the name as a wildcard; for experts also if the name is a part of an entry.
The name is the engine's: `qkv_proj`, `gate_up_proj`, `mlp.experts`. So `layers.1.mlp` would take
`layers.1.mlp.experts` with it, and `lm_head` is found in `language_model.lm_head`.

Hence: exact names, the fused spelling where all members are excluded, the module of excluded
experts instead of each of its projections, and a wildcard only for a whole top-level part of the
model in which nothing is quantized. Every entry is tried against every quantized name, and one
that hits is an error.

Source: vLLM 0.33.0, model_executor/layers/quantization/modelopt.py, `is_layer_excluded` and
`apply_vllm_mapper`; .../utils/quant_utils.py, `is_layer_skipped`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from harness.artifacts import QuantPlan
from harness.errors import RecipeError

FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "in_proj_qkvz": ("in_proj_qkv", "in_proj_z"),
    "in_proj_ba": ("in_proj_b", "in_proj_a"),
}
"""How engines spell layers that they fuse, and the layers that checkpoints have instead."""

_OF_EXPERT = re.compile(r"(?P<experts>.+\.experts)(\.\d+\..+)?")


def ignored_modules(plan: QuantPlan) -> tuple[str, ...]:
    """Return the entries for `ignore` and `exclude_modules`, sorted.

    Raises:
        RecipeError: an entry would also leave a quantized module out; no list can say the plan.
    """
    quantized = quantized_names(plan)
    excluded = {excluded.module for excluded in plan.excluded} - {""}
    entries = {*_exact(excluded), *_fused(excluded), *_subtrees(excluded, quantized)}
    for entry in sorted(entries):
        for name in quantized:
            if hits(entry, name):
                message = (
                    f"engines would take the excluded '{entry}' for a part of the quantized "
                    f"'{name}'. Let the rules quantize both or neither."
                )
                raise RecipeError(message)
    return tuple(sorted(entries))


def quantized_names(plan: QuantPlan) -> tuple[str, ...]:
    """Return every name by which an engine may look a quantized layer up."""
    names: dict[str, None] = {}
    for planned in plan.quantized:
        found = _OF_EXPERT.fullmatch(planned.linear.name)
        # Experts are one module to engines; its name is a part of all its projections' names, so
        # what hits a projection and not the module hits nothing that an engine looks up.
        own = [found["experts"]] if found else [planned.linear.name, planned.linear.group]
        names.update(dict.fromkeys(own))
    return tuple(names)


def hits(entry: str, name: str) -> bool:
    """Whether an engine that meets `entry` in the list leaves the module `name` unquantized."""
    stem = entry.removesuffix("*").removesuffix(".")
    in_entry = "experts" in name and "experts" in entry and name in entry
    return stem in name or in_entry or fnmatchcase(name, entry)


def _exact(excluded: set[str]) -> Iterator[str]:
    for module in excluded:
        found = _OF_EXPERT.fullmatch(module)
        if found:
            yield found["experts"]
            yield f"{found['experts']}*"
        else:
            yield module


def _fused(excluded: set[str]) -> Iterator[str]:
    for module in excluded:
        parent, _, leaf = module.rpartition(".")
        for fused, members in FUSED.items():
            whole = leaf == members[0] and all(f"{parent}.{m}" in excluded for m in members)
            if whole and not _OF_EXPERT.fullmatch(module):
                yield f"{parent}.{fused}"


def _subtrees(excluded: set[str], quantized: Sequence[str]) -> Iterator[str]:
    """Yield a wildcard for each part, one or two levels deep, that holds nothing quantized."""
    for module in excluded:
        parts = module.split(".")
        for depth in (1, 2):
            top = ".".join(parts[:depth])
            if depth < len(parts) and not any(hits(f"{top}*", name) for name in quantized):
                yield f"{top}*"
                break
