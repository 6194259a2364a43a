"""What can be said apart, and in which formats: the units of a model and their options.

A unit is what engines run as one layer (q/k/v, gate/up, all experts of a layer), as planning has
it. Whether a unit can have a format is asked of the same code that plans and refuses recipes.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from harness.artifacts import (
    LEFT,
    PLAIN,
    Algorithm,
    Inventory,
    Linear,
    PlannedLinear,
    QuantPlan,
    Recipe,
    Rounding,
    Rule,
)
from harness.errors import RecipeError, UsageError
from harness.export import stored_bits
from harness.formats import has_input_scale
from harness.models import Source
from harness.preflight import Job
from harness.preflight.engine import check_widths, demands_of
from harness.reading import DTYPE_BITS
from harness.recipe import load_recipe, plan
from harness.recipe.algorithms import ENDINGS, split
from harness.recipe.rules import match_rules
from harness.serve import check_served
from harness.tuning.goal import Wanted

_SHARED = ("expert_scales", "wording", "matching", "kv_cache")
"""What a recipe has once, for all its layers."""


class Choice(NamedTuple):
    """A format that units may get."""

    name: str
    weight_format: str
    input_format: str | None
    recipe: Recipe
    reached: frozenset[str]
    """Linear.name of all that its recipe quantizes."""


class Option(NamedTuple):
    """A unit in a format."""

    planned: tuple[PlannedLinear, ...]
    num_bits: int


class Unit(NamedTuple):
    """Layers that are quantized alike or not at all."""

    name: str
    layer: int
    linears: tuple[Linear, ...]
    num_weights: int
    plain_bits: int
    """As the source stores it."""
    options: Mapping[str, Option]
    """By format; what is left as it is has none."""


class Space(NamedTuple):
    """All recipes that may be chosen."""

    units: tuple[Unit, ...]
    choices: Mapping[str, Choice]
    may_leave: bool
    refused: Mapping[str, int]
    """Why a unit cannot have a format, with how many units."""
    layers: str
    """Path of the decoder layers in the model."""

    @property
    def recipe(self) -> Recipe:
        """Return a recipe that has what those of all choices share."""
        return replace(
            next(iter(self.choices.values())).recipe,
            algorithm=self.algorithm,
            exclude=tuple(self.exclude()),
        )

    @property
    def algorithm(self) -> Algorithm:
        """Return how NVFP4 weights are made."""
        found = (one.recipe.algorithm for one in self.choices.values())
        return next((one for one in found if one != PLAIN), PLAIN)

    def exclude(self) -> list[str]:
        """Return the patterns that all choices exclude."""
        first, *others = (one.recipe.exclude for one in self.choices.values())
        return [pattern for pattern in first if all(pattern in other for other in others)]

    def measured(self) -> QuantPlan:
        """Return what an observer is to see so that every unit can be made in all its formats."""
        quantized = tuple(
            _seen_for([option.planned[index] for option in unit.options.values()])
            for unit in self.units
            for index in range(len(unit.linears))
        )
        algorithm = self.algorithm
        if algorithm.follows_quantized:  # alone, a unit has nothing before it to make up for
            algorithm = replace(algorithm, rounding=Rounding.GPTQ)
        return QuantPlan(
            scheme="",
            kv_cache="none",
            quantized=quantized,
            excluded=(),
            attentions=(),
            digest="",
            algorithm=algorithm,
        )


def _seen_for(planned: Sequence[PlannedLinear]) -> PlannedLinear:
    """Return a layer in one of its formats, with all that any of them needs to see."""
    first = planned[0]
    ranged = next((one for one in planned if has_input_scale(one.input_format)), first)
    summed = next((one for one in planned if one.weight_format == Algorithm.FORMAT), first)
    return replace(first, weight_format=summed.weight_format, input_format=ranged.input_format)


def choices_of(typed: Wanted, inventory: Inventory) -> Mapping[str, Choice]:
    """Return the formats that were typed.

    Raises:
        UsageError: one is unknown, is several at once, or goes with no other.
    """
    choices = {name: _choice(typed, name, inventory) for name in typed.formats}
    first, *others = choices.values()
    for other in others:
        for name in _SHARED:
            if getattr(first.recipe, name) != getattr(other.recipe, name):
                message = (
                    f"--formats {first.name},{other.name}: a recipe has one {name}, and theirs "
                    "differ. Leave one of them out."
                )
                raise UsageError(message)
    made = [one for one in choices.values() if one.weight_format == Algorithm.FORMAT]
    if len({one.recipe.algorithm for one in made}) > 1:
        message = (
            f"--formats {','.join(one.name for one in made)}: a recipe has one algorithm, and "
            "theirs differ. Name formats without one, and type --algorithm."
        )
        raise UsageError(message)
    if typed.algorithm and not made:
        message = (
            f"--algorithm {typed.algorithm} is for {Algorithm.FORMAT} weights, and --formats has "
            "none. Leave it out, or add nvfp4."
        )
        raise UsageError(message)
    return choices


def _choice(typed: Wanted, name: str, inventory: Inventory) -> Choice:
    recipe = load_recipe(replace(typed.request, qformat=name, recipe=None))
    matches = match_rules(recipe.rules, recipe.exclude, inventory, matching=recipe.matching)
    quantized = [one for one in matches if one.weight.format is not None]
    pairs = {(str(one.weight.format), one.input.format) for one in quantized}
    if len(pairs) != 1:
        are = "several formats at once" if pairs else "no format for any layer of this model"
        message = f"--formats {name}: its recipe has {are}. Name recipes of one format each."
        raise UsageError(message)
    ((weight_format, input_format),) = pairs
    if typed.algorithm and weight_format == Algorithm.FORMAT:
        recipe = replace(recipe, algorithm=_algorithm(typed.algorithm))
    reached = frozenset(one.linear.name for one in quantized)
    return Choice(name, weight_format, input_format, recipe, reached)


def _algorithm(ending: str) -> Algorithm:
    named = split(f"{Algorithm.FORMAT}_{ending}")
    of_weights = replace(named.algorithm, smoothing=PLAIN.smoothing, inputs=PLAIN.inputs)
    if named.recipe != Algorithm.FORMAT or of_weights == PLAIN or named.algorithm != of_weights:
        scales, roundings = ENDINGS["scales"], ENDINGS["rounding"]
        message = (
            f"--algorithm '{ending}' is none that layers may have apart. Type one of "
            f"{', '.join((*scales, *roundings))}, or one of the first {len(scales)} with "
            f"{' or '.join(f'_{one}' for one in roundings)} behind it."
        )
        raise UsageError(message)
    return named.algorithm


def space_of(typed: Wanted, job: Job, layers: str) -> Space:
    """Return the units of a model with their options.

    Args:
        typed: what was typed.
        job: of any of the formats: its model and engine.
        layers: path of the decoder layers in the running model.

    Raises:
        UsageError: a format is none of one kind, or no unit can have any.
    """
    choices = choices_of(typed, job.inventory)
    members: dict[str, list[Linear]] = defaultdict(list)
    for linear in job.inventory.linears:
        members[linear.experts or linear.group].append(linear)
    units, refused = [], dict[str, int]()
    for name, linears in members.items():
        found = re.match(rf"{re.escape(layers)}\.(\d+)\.", linears[0].parameter.tensor)
        options = _options(choices, linears, job, refused) if found else {}
        if found and options:
            bits = sum(_plain_bits(job.source, one) for one in linears)
            count = sum(one.shape[0] * one.shape[1] for one in linears)
            units.append(Unit(name, int(found[1]), tuple(linears), count, bits, options))
    if not units:
        why = next(iter(refused), "the formats reach no decoder layer")
        message = f"nothing of '{job.recipe.model}' can be quantized so: {why}"
        raise UsageError(message)
    units.sort(key=lambda one: one.layer)
    return Space(tuple(units), choices, typed.may_leave, refused, layers)


def _options(
    choices: Mapping[str, Choice], linears: Sequence[Linear], job: Job, refused: dict[str, int]
) -> Mapping[str, Option]:
    found = {}
    for choice in choices.values():
        if not all(one.name in choice.reached for one in linears):
            continue
        try:
            planned = _planned(choice, linears, job)
        except UsageError as error:
            line = f"{choice.name}: {error}"
            refused[line] = refused.get(line, 0) + 1
            continue
        found[choice.name] = Option(planned, sum(map(stored_bits, planned)))
    return found


def _planned(choice: Choice, linears: Sequence[Linear], job: Job) -> tuple[PlannedLinear, ...]:
    """Plan a unit as if it were all of the model.

    Raises:
        UsageError: it cannot be made so, or the engine does not load it.
    """
    alone = replace(job.inventory, linears=tuple(linears), unquantizable={}, attentions=())
    rules = [Rule(quantizer="*weight_quantizer", format=choice.weight_format)]
    if choice.input_format is not None:
        rules.append(Rule(quantizer="*input_quantizer", format=choice.input_format))
    recipe = replace(choice.recipe, rules=tuple(rules), exclude=(), algorithm=PLAIN)
    planned = plan(recipe, alone)
    check_widths(job.recipe.engine, planned)
    check_served(job.recipe.engine, demands_of(planned))
    return planned.quantized


def _plain_bits(source: Source, linear: Linear) -> int:
    """Return the bits that a layer takes where it is left as it is."""
    name, count = linear.source.tensor, linear.shape[0] * linear.shape[1]
    if (packed := source.packed.get(name)) is not None:
        whole = 8 * (packed.codes.num_bytes + packed.scales.num_bytes)
        numel = source.tensors[name].num_bytes * 8 // DTYPE_BITS[source.tensors[name].dtype]
        return whole * count // numel
    return DTYPE_BITS[source.tensors[name].dtype] * count


def bits_of(unit: Unit, name: str) -> int:
    """Return the stored bits of a unit in a format.

    Raises:
        RecipeError: it cannot have it.
    """
    if name == LEFT:
        return unit.plain_bits
    if name not in unit.options:
        message = f"'{unit.name}' cannot be {name}. Choose another format for it."
        raise RecipeError(message)
    return unit.options[name].num_bits
