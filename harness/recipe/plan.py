"""Turn the matched rules into a plan that an engine can load, or refuse it with the reason.

Engines fuse layers when they load them (q/k/v, gate/up, all experts of a layer), so what is
fused must have one format. All of this is known from names and shapes, so it is said here, before
any weight is read.
"""

import dataclasses
import re
from collections import defaultdict

from harness.artifacts import (
    MIXED,
    PLAIN,
    Algorithm,
    Excluded,
    ExpertScales,
    Inventory,
    KvFormat,
    Linear,
    PlannedLinear,
    QuantPlan,
    Recipe,
    digest_of,
)
from harness.errors import ModelError, RecipeError
from harness.formats import get_format, get_scheme, known_formats, scheme_of
from harness.recipe.names import nearest
from harness.recipe.rules import OFF, Match, match_rules

_WEIGHT = ".weight"
_LAYER = re.compile(r"\.\d+\.")
"""In the name of a parameter that belongs to a layer."""


def plan(recipe: Recipe, inventory: Inventory) -> QuantPlan:
    """Decide what becomes of each weight of `inventory`.

    Raises:
        RecipeError: the rules do not fit the model, or ask for what no engine loads.
        ModelError: a width of the model is no multiple of the format's block.
    """
    _check_formats(recipe)
    matches = match_rules(recipe.rules, recipe.exclude, inventory, matching=recipe.matching)
    quantized = tuple(
        PlannedLinear(
            linear=_grouped(match.linear, recipe.expert_scales),
            weight_format=match.weight.format,
            input_format=match.input.format,
            rule=match.weight.rule,
        )
        for match in matches
        if match.weight.format is not None
    )
    _check_inputs(matches)
    _check_fused(matches)
    _check_widths(quantized)
    scheme = _scheme(quantized)
    excluded = (
        *(
            Excluded(module=match.linear.name, rule=match.weight.rule)
            for match in matches
            if match.weight.format is None
        ),
        *(Excluded(module=name, rule=rule) for name, rule in _stacks(matches).items()),
        *(Excluded(module=name, rule=what) for name, what in inventory.unquantizable.items()),
    )
    attentions = inventory.attentions if recipe.kv_cache is not KvFormat.NONE else ()
    _check_algorithm(recipe.algorithm, quantized)
    parts = (scheme, recipe.kv_cache, recipe.wording, quantized, excluded, attentions)
    # Plans without an algorithm keep the digest that checkpoints name.
    chosen = () if recipe.algorithm == PLAIN else (recipe.algorithm,)
    return QuantPlan(
        scheme=scheme,
        kv_cache=recipe.kv_cache,
        quantized=quantized,
        excluded=excluded,
        attentions=attentions,
        digest=digest_of(inventory.digest, *parts, *chosen),
        wording=recipe.wording,
        algorithm=recipe.algorithm,
    )


def _grouped(linear: Linear, scales: ExpertScales) -> Linear:
    """Return a layer whose global scale is shared with those that the recipe puts it with."""
    if scales is ExpertScales.OWN or not linear.is_routed:
        return linear
    kind = linear.group.rpartition(".")[2]  # such as `gate_up_proj` of `...experts.3.gate_up_proj`
    return dataclasses.replace(linear, group=f"{linear.experts}.{kind}")


def _stacks(matches: tuple[Match, ...]) -> dict[str, str]:
    """Return the modules of the files that stack experts which stay as they are, with the rule.

    Engines and checks meet them by that name too, such as Granite's `input_linear`.
    """
    return {
        match.linear.source.tensor.removesuffix(_WEIGHT): match.weight.rule
        for match in matches
        if match.weight.format is None
        and match.linear.source.expert is not None
        and match.linear.source.tensor.endswith(_WEIGHT)
    }


def _scheme(quantized: tuple[PlannedLinear, ...]) -> str:
    """Return the one scheme of all layers; MIXED where there are several, or engines ask for it.

    Raises:
        RecipeError: nothing is quantized, or a layer as no engine loads it.
    """
    schemes: set[str] = set()
    is_alone = True
    for one in quantized:
        try:
            scheme = get_scheme(scheme_of(one.weight_format, one.input_format))
        except RecipeError as error:
            message = f"rule '{one.rule}': {error}"
            raise RecipeError(message) from error
        schemes.add(scheme.name)
        if one.linear.is_routed and not scheme.loads_experts:
            message = (
                f"no engine loads routed experts as {scheme.name}, and rule '{one.rule}' makes "
                f"'{one.linear.name}' so. Let the rules leave the experts, or give them another "
                "format."
            )
            raise RecipeError(message)
        is_alone = is_alone and (scheme.loads_experts_alone or not one.linear.is_routed)
    if not schemes:
        message = "the recipe quantizes nothing: every layer is excluded. Mend its rules."
        raise RecipeError(message)
    return schemes.pop() if len(schemes) == 1 and is_alone else MIXED


def _check_formats(recipe: Recipe) -> None:
    known = (*known_formats(), OFF)
    for rule in recipe.rules:
        if rule.format not in known:
            close = nearest(rule.format, known, count=1)
            hint = f"Did you mean '{close[0]}'? " if close else ""
            message = (
                f"rule '{rule.quantizer}' asks for the unknown format '{rule.format}'. "
                f"{hint}Known: {', '.join(known)}."
            )
            raise RecipeError(message)


def _check_algorithm(algorithm: Algorithm, quantized: tuple[PlannedLinear, ...]) -> None:
    if algorithm == PLAIN:
        return
    reached = [one for one in quantized if one.weight_format == Algorithm.FORMAT]
    if not reached:
        message = (
            f"the recipe's algorithm ({algorithm}) is for {Algorithm.FORMAT} weights, and its "
            "rules make none. Leave out the algorithm, or change the rules."
        )
        raise RecipeError(message)
    if algorithm.damping != PLAIN.damping and not algorithm.needs_whole_inputs:
        message = (
            f"the recipe's damping of {algorithm.damping:g} is GPTQ's, and it rounds to the "
            "nearest code. Let it have 'rounding: gptq', or leave out the damping."
        )
        raise RecipeError(message)
    if algorithm.inputs is not PLAIN.inputs and not any(
        one.input_format == Algorithm.FORMAT for one in quantized
    ):
        message = (
            f"the recipe's algorithm ({algorithm}) is for {Algorithm.FORMAT} inputs, and its rules "
            "make none. Leave it out, or change the rules."
        )
        raise RecipeError(message)
    outside = [one for one in reached if not _LAYER.search(one.linear.parameter.tensor)]
    if algorithm.needs_inputs and outside:
        message = (
            f"the recipe's algorithm ({algorithm}) sees inputs of decoder layers alone, and rule "
            f"'{outside[0].rule}' reaches '{outside[0].linear.name}'. Exclude it, or give it "
            "another format."
        )
        raise RecipeError(message)


def _check_inputs(matches: tuple[Match, ...]) -> None:
    for match in matches:
        if match.input.format is not None and match.weight.format is None:
            message = (
                f"rule '{match.input.rule}' quantizes the input of '{match.linear.name}', whose "
                f"weight stays as it is ({match.weight.rule}). Let a rule reach both or neither."
            )
            raise RecipeError(message)


def _check_fused(matches: tuple[Match, ...]) -> None:
    fused: dict[str, list[Match]] = defaultdict(list)
    for match in matches:
        fused[match.linear.experts or match.linear.group].append(match)
    for unit, members in fused.items():
        first = members[0]
        for match in members[1:]:
            if _formats(match) != _formats(first):
                message = (
                    f"'{first.linear.name}' would be {_formats(first)} and '{match.linear.name}' "
                    f"{_formats(match)}, but engines load '{unit}' as one layer. "
                    "Let the rules reach all of it or none."
                )
                raise RecipeError(message)


def _formats(match: Match) -> str:
    return f"{match.weight.format or 'unquantized'} with {match.input.format or 'plain'} inputs"


def _check_widths(quantized: tuple[PlannedLinear, ...]) -> None:
    for planned in quantized:
        block = get_format(planned.weight_format).block
        width = planned.linear.shape[1]
        if block is not None and width % block:
            message = (
                f"'{planned.linear.name}' is {width} wide, no multiple of the {block} weights that "
                f"share a scale in {planned.weight_format}. Exclude it in a recipe of your own, "
                "or choose --qformat fp8."
            )
            raise ModelError(message)
