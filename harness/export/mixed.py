"""How a checkpoint is declared whose layers have several schemes: MIXED_PRECISION.

`quantized_layers` names the scheme of each layer; engines take every other layer for unquantized.
All experts of a layer have one entry, for engines load them as one layer. The ignore list is short:
the patterns of draft heads, which engines build apart from the model, and what an engine would take
for quantized by what stands beside it (vLLM gives experts that have no entry the scheme of the
shared expert).

Source: nvidia-modelopt 0.47.0, torch/export/quant_utils.py, and the declarations of published
checkpoints; vLLM 0.32.0, quantization/modelopt.py, `_resolve_quant_algo`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

from harness.artifacts import MIXED, Linear, QuantPlan
from harness.engines import MODELOPT, Declaration, LayerDeclared, Rules
from harness.errors import RecipeError
from harness.export.entries import exact_entries
from harness.formats import scheme_of

_DRAFT = re.compile(r"(?P<head>(?:.+\.)?(?:mtp|nextn))(?P<layer>\.layers\.\d+)?(?:\.|$)")
_OF_EXPERT = re.compile(r"\.\d+\.[^.]+$")
_JOINT = re.compile(r"(?P<layer>.+\.layers\.\d+)\.(?:eh_proj|enorm|hnorm|shared_head\..+)")
"""What joins a draft head that is one more layer of the decoder, as DeepSeek's is."""


def layer_schemes(plan: QuantPlan) -> Mapping[str, str]:
    """Return the scheme of every layer as engines look it up, in the order of the model."""
    return {
        declared_name(q.linear): scheme_of(q.weight_format, q.input_format) for q in plan.quantized
    }


def declared_name(linear: Linear) -> str:
    """Return the name of a layer's entry; that of routed experts is where they all lie."""
    return _OF_EXPERT.sub("", linear.name) if linear.is_routed else linear.name


def ignored_if_mixed(plan: QuantPlan) -> tuple[str, ...]:
    """Return the entries for `ignore` and `exclude_modules`.

    Raises:
        RecipeError: no declaration can say the plan to an engine.
    """
    excluded = [one.module for one in plan.excluded if one.module]
    patterns = tuple(dict.fromkeys(_draft_patterns(excluded)))
    taken = _rules(plan, patterns).algorithms(excluded)
    mistaken = (name for name, scheme in taken.items() if scheme)
    entries = (*patterns, *sorted(set(exact_entries(mistaken))))
    _check(plan, excluded, entries)
    return entries


def _draft_patterns(modules: Iterable[str]) -> Iterator[str]:
    """Yield the patterns of draft heads: their layers first, then all of each."""
    heads: list[str] = []
    for module in modules:
        if joined := _JOINT.fullmatch(module):
            yield f"{joined['layer']}.*"
        elif found := _DRAFT.match(module):
            heads.append(f"{found['head']}*")
            if found["layer"]:
                yield f"{found['head']}{found['layer']}*"
    yield from heads


def _rules(plan: QuantPlan, ignore: tuple[str, ...]) -> Rules:
    """Return what an engine makes of the declaration."""
    layers = {name: LayerDeclared(scheme, None) for name, scheme in layer_schemes(plan).items()}
    return Rules(
        Declaration(source="", layout=MODELOPT, algorithm=MIXED, layers=layers, ignore=ignore)
    )


def _check(plan: QuantPlan, excluded: list[str], ignore: tuple[str, ...]) -> None:
    """Ask the engine's rules about every layer.

    Raises:
        RecipeError: one would be taken for something else than it is.
    """
    meant: dict[str, str | None] = dict.fromkeys(excluded)
    meant |= {q.linear.name: scheme_of(q.weight_format, q.input_format) for q in plan.quantized}
    for layer, asked in _rules(plan, ignore).layers(meant):
        schemes = {meant[member] for member in layer.members}
        if schemes != {asked.algorithm} or asked.is_split:
            are = " and ".join(sorted(scheme or "unquantized" for scheme in schemes))
            message = (
                f"engines would take '{layer.members[0]}' for {asked.algorithm or 'unquantized'}: "
                f"they run {len(layer.members)} layer(s) as '{layer.name}', which the rules make "
                f"{are}. Let the rules treat all of them alike, and what stands beside them too."
            )
            raise RecipeError(message)
