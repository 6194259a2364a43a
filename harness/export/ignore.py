"""The list of modules that an engine must not take for quantized.

Engines read it in three ways at once, and each can hit too much (harness.engines.rules): an entry
`layers.1.mlp` would take `layers.1.mlp.experts` with it, and `lm_head` is found in
`language_model.lm_head`.

Hence: exact names, the fused spelling where all members are excluded, the module of excluded
experts instead of each of its projections, and a wildcard only for a whole top-level part of the
model in which nothing is quantized. Every entry is tried against every quantized name, and one
that hits is an error.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

from harness.artifacts import MIXED, QuantPlan
from harness.engines import (
    MODELOPT,
    USUAL,
    Declaration,
    EngineLayer,
    Rules,
    engine_layers,
)
from harness.errors import RecipeError
from harness.export.entries import OF_EXPERT, exact_entries
from harness.export.mixed import ignored_if_mixed

_HEAD = "lm_head"


def ignored_modules(plan: QuantPlan) -> tuple[str, ...]:
    """Return the entries for `ignore` and `exclude_modules`.

    Raises:
        RecipeError: an entry would also leave a quantized module out; no list can say the plan.
    """
    if plan.scheme == MIXED:
        return ignored_if_mixed(plan)
    quantized = list(engine_layers((p.linear.name for p in plan.quantized), USUAL))
    excluded = set(_layers(plan))
    entries = {*exact_entries(excluded), *_fused(excluded), *_subtrees(excluded, quantized)}
    hits = _hits(entries, quantized)
    for entry in sorted(entries):
        if hit := hits.get(entry):
            message = (
                f"engines would take the excluded '{entry}' for a part of the quantized "
                f"'{hit.name}'. Let the rules quantize both or neither."
            )
            raise RecipeError(message)
    return tuple(sorted(entries))


def _layers(plan: QuantPlan) -> Iterator[str]:
    """Yield what engines may ask about and must not take for quantized.

    A module that holds quantized ones beside a matrix of its own (Mamba's `A_log`) is no layer. An
    output layer that is the embedding has no name in the files, and engines ask about it all the
    same: vLLM would look for its codes.
    """
    modules = [excluded.module for excluded in plan.excluded if excluded.module]
    quantized = {planned.linear.name for planned in plan.quantized}
    holders = {above for name in quantized for above in _above(name)}
    yield from (one for one in modules if one not in holders or OF_EXPERT.fullmatch(one))
    if not any(name.rpartition(".")[2] == _HEAD for name in (*modules, *quantized)):
        yield _HEAD


def _above(module: str) -> Iterator[str]:
    """Yield the modules that a module lies in."""
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _hits(entries: Iterable[str], layers: Sequence[EngineLayer]) -> dict[str, EngineLayer]:
    """Return a layer that an engine which meets an entry in the list would leave unquantized."""
    ignore = tuple(entries)
    declared = Declaration(source="", layout=MODELOPT, algorithm="", ignore=ignore)
    return Rules(declared).first_hits(layers)


def _fused(excluded: set[str]) -> Iterator[str]:
    for module in excluded:
        parent, _, leaf = module.rpartition(".")
        for fused, members in USUAL.fused.items():
            whole = leaf == members[0] and all(f"{parent}.{m}" in excluded for m in members)
            if whole and not OF_EXPERT.fullmatch(module):
                yield f"{parent}.{fused}"


def _subtrees(excluded: set[str], quantized: Sequence[EngineLayer]) -> Iterator[str]:
    """Yield a wildcard for each part, one or two levels deep, that holds nothing quantized."""
    above = {module: _parts_above(module) for module in excluded}
    hit = _hits(set(chain.from_iterable(above.values())), quantized)
    for trees in above.values():
        yield from islice((tree for tree in trees if tree not in hit), 1)


def _parts_above(module: str) -> list[str]:
    parts = module.split(".")
    return [f"{'.'.join(parts[:depth])}*" for depth in (1, 2) if depth < len(parts)]
