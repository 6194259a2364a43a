"""A recipe's rules from what each unit gets: few and readable, and proven to say just that.

The format that most weights have comes first, for everything. What differs is named by layer as a
whole, by block, or by matrix, and layers that differ alike share a rule: `layers.[3-7].mlp.*`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from harness.artifacts import LEFT, Inventory, Linear, QuantPlan, Recipe, Rule
from harness.errors import RecipeError
from harness.recipe import plan
from harness.recipe.rules import names_of
from harness.tuning.units import Space

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_WEIGHT, _INPUT = "weight_quantizer", "input_quantizer"


class _Treatment(NamedTuple):
    weight: str | None
    input: str | None


_NOTHING = _Treatment(None, None)


def recipe_for(space: Space, choice: Mapping[str, str], inventory: Inventory) -> Recipe:
    """Return a recipe that gives each unit its format, and leaves everything else.

    Raises:
        RecipeError: no recipe can say it, or no declaration.
    """
    unmerged = tuple(_rules(space, choice, merged=False))
    others = _outside(space, inventory)
    for rules in (tuple(_rules(space, choice, merged=True)), unmerged):
        recipe = replace(space.recipe, rules=rules, exclude=(*space.exclude(), *others))
        if _says(plan(recipe, inventory), space, choice):
            return recipe
    message = "the rules of the tuned recipe do not reach what they are for. Report the model."
    raise RecipeError(message)


def _outside(space: Space, inventory: Inventory) -> list[str]:
    """Return patterns of all layers that are no units and that no choice's list excludes.

    One stands for all that differ in numbers only, unless a unit is among them.
    """
    inside = {linear.name for unit in space.units for linear in unit.linears}
    kept = [_beginning(one) for one in inventory.linears if one.name in inside]
    known = space.exclude()
    found: dict[str, None] = {}
    for linear in inventory.linears:
        names = names_of(linear.weight_quantizer, linear)
        if linear.name in inside or any(fnmatchcase(n, p) for n in names for p in (*known, *found)):
            continue
        exact = f"{_beginning(linear)}*"
        pattern = _NUMBER.sub("*", exact)
        is_shared = any(fnmatchcase(name, pattern) for name in kept)
        found[exact if is_shared else pattern] = None
    return list(found)


def _beginning(linear: Linear) -> str:
    """Return how both quantizers of a layer are called, up to what they are."""
    singular = 1 if linear.is_routed else 0
    return names_of(linear.weight_quantizer, linear)[singular].removesuffix(_WEIGHT)


def _says(planned: QuantPlan, space: Space, choice: Mapping[str, str]) -> bool:
    """Tell whether a plan gives each unit what was chosen, and nothing else anything."""
    found = {one.linear.name: (one.weight_format, one.input_format) for one in planned.quantized}
    wanted = {
        one.linear.name: (one.weight_format, one.input_format)
        for unit in space.units
        if choice[unit.name] != LEFT
        for one in unit.options[choice[unit.name]].planned
    }
    return found == wanted


def _rules(space: Space, choice: Mapping[str, str], *, merged: bool) -> Iterator[Rule]:
    weights: Counter[_Treatment] = Counter()
    for unit in space.units:
        weights[_treatment(space, choice[unit.name])] += unit.num_weights
    usual = max(weights, key=lambda one: weights[one])
    if usual.weight is not None:
        yield from _pair("*", usual, _NOTHING)
    layers = sorted({unit.layer for unit in space.units})
    parts = {layer: dict(_parts(space, choice, layer)) for layer in layers}
    if merged:
        parts = {layer: dict(_merged(inner)) for layer, inner in parts.items()}
    for (numbers, treatment), patterns in _unusual(parts, usual).items():
        for pattern in _joined(patterns) if merged else patterns:
            for number in number_patterns(numbers):
                yield from _pair(f"{space.layers}.{number}.{pattern}", treatment, usual)


def _unusual(
    parts: Mapping[int, Mapping[str, _Treatment]], usual: _Treatment
) -> Mapping[tuple[tuple[int, ...], _Treatment], list[str]]:
    """Return what is not treated as most is: patterns by the layers they stand for, and how."""
    named: dict[tuple[str, _Treatment], list[int]] = defaultdict(list)
    for layer, inner in parts.items():
        for pattern, treatment in inner.items():
            if treatment != usual:
                named[pattern, treatment].append(layer)
    alike: dict[tuple[tuple[int, ...], _Treatment], list[str]] = defaultdict(list)
    for (pattern, treatment), layers in named.items():
        alike[tuple(layers), treatment].append(pattern)
    return alike


def _treatment(space: Space, name: str) -> _Treatment:
    if name == LEFT:
        return _NOTHING
    return _Treatment(space.choices[name].weight_format, space.choices[name].input_format)


def _pair(pattern: str, treatment: _Treatment, usual: _Treatment) -> Iterator[Rule]:
    """Yield what turns `usual` into `treatment` for quantizers whose names begin so."""
    for kind, form, before in (
        (_WEIGHT, treatment.weight, usual.weight),
        (_INPUT, treatment.input, usual.input),
    ):
        if form is not None or before is not None:
            yield Rule(quantizer=f"{pattern}{kind}", format=form or LEFT)


def _parts(space: Space, choice: Mapping[str, str], layer: int) -> Iterator[tuple[str, _Treatment]]:
    """Yield the beginnings of the quantizers' names within a layer, with what they get."""
    for unit in space.units:
        if unit.layer == layer:
            for beginning in dict.fromkeys(map(_beginning, unit.linears)):
                inner = beginning.removeprefix(f"{space.layers}.{layer}.")
                yield inner, _treatment(space, choice[unit.name])


def _merged(parts: Mapping[str, _Treatment]) -> Iterator[tuple[str, _Treatment]]:
    """Yield patterns for a layer: of all of it, of a block, or of a matrix."""
    if len(set(parts.values())) == 1:
        yield "*", next(iter(parts.values()))
        return
    blocks: dict[str, dict[str, _Treatment]] = defaultdict(dict)
    for beginning, treatment in parts.items():
        block, dot, _ = beginning.rstrip(".").partition(".")
        blocks[f"{block}{dot}"][beginning] = treatment
    for block, inner in blocks.items():
        if block.endswith(".") and len(inner) > 1 and len(set(inner.values())) == 1:
            yield f"{block}*", next(iter(inner.values()))
        else:
            yield from inner.items()


def _joined(patterns: Sequence[str]) -> list[str]:
    """Return patterns in fewer ones, where they differ in one letter: `[kqv]_proj.`."""
    left, found = list(patterns), []
    while left:
        first = left[0]
        at = max(range(len(first)), key=lambda at: len(_alike_but(first, at, left)))
        same = _alike_but(first, at, left)
        letters = "".join(sorted(one[at] for one in same))
        is_plain = len(same) > 1 and letters.isalpha()
        found.append(f"{first[:at]}[{letters}]{first[at + 1 :]}" if is_plain else first)
        left = [one for one in left if one not in (same if is_plain else [first])]
    return found


def _alike_but(first: str, at: int, patterns: Sequence[str]) -> list[str]:
    """Return the patterns that are `first` but for the letter `at`."""
    return [one for one in patterns if (one[:at], one[at + 1 :]) == (first[:at], first[at + 1 :])]


def number_patterns(numbers: Sequence[int]) -> list[str]:
    """Return wildcard patterns that match these numbers and no others: `[3-7]`, `1[0-9]`."""
    last_digits: dict[str, list[int]] = defaultdict(list)
    for number in sorted(set(numbers)):
        tens, digit = divmod(number, 10)
        last_digits[str(tens) if tens else ""].append(digit)
    alike: dict[str, list[str]] = defaultdict(list)
    for beginning, digits in last_digits.items():
        alike[_class(digits)].append(beginning)
    found = []
    for last, beginnings in alike.items():
        single = [int(one) for one in beginnings if len(one) == 1]
        found += [f"{one}{last}" for one in beginnings if len(one) != 1]
        found += [f"{_class(single)}{last}"] if single else []
    return found


def _class(digits: Sequence[int]) -> str:
    """Return a pattern of one digit."""
    if len(digits) == 1:
        return str(digits[0])
    parts = ""
    for digit in digits:
        is_first, is_last = digit - 1 not in digits, digit + 1 not in digits
        is_pair = is_last and digit - 2 not in digits
        if is_first or (is_last and is_pair):
            parts += str(digit)
        elif is_last:
            parts += f"-{digit}"
    return f"[{parts}]"
