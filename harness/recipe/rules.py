"""Match rules to quantizers: normalized names, the last match wins, nothing fails silently.

Fused experts keep one weight quantizer an expert in a list
(`...mlp.experts.gate_up_proj_weight_quantizers.17`), a name that rules such as
`*mlp.experts*weight_quantizer` never matched: experts stayed in bfloat16 and nobody was told
(Model-Optimizer PR 1340). So each quantizer is tried under several names: as it is, without the
list index in singular and plural, and as the source files spell it, expert by expert.
"""

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from harness.artifacts import Inventory, Linear, Matching, Rule
from harness.errors import ReasonCode, RecipeError
from harness.recipe.names import nearest

OFF = "none"
_NOT_THERE = frozenset({"router", "embedding", "left out of the running model"})
_LIST_ITEM = re.compile(r"(?<=_quantizer)s?\.\d+$|(?<=_quantizer)s?$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_NUMBERS = re.compile(r"(?:(?<=\.)|^)[0-9]+(?=\.|$)")
_ASKS_FOR_ONE = re.compile(r"[?\[]|(?:(?<=[.*])|^)[0-9]+(?=[.*]|$)")
"""A pattern that may take one number between dots and not another; that in `conv1d` is none."""


class Choice(NamedTuple):
    """What the rules say of one quantizer."""

    format: str | None
    """None for a quantizer that stays off."""
    rule: str
    """The pattern that decided, or `no rule`."""


class Match(NamedTuple):
    """What the rules say of one linear layer."""

    linear: Linear
    weight: Choice
    input: Choice


def names_of(
    quantizer: str, linear: Linear, *, matching: Matching = Matching.OWN
) -> tuple[str, ...]:
    """Return every name under which a rule may reach one quantizer of `linear`."""
    singular = _LIST_ITEM.sub("", quantizer)
    if matching is Matching.PEER:
        return tuple(dict.fromkeys((quantizer, singular)))
    kind = "weight_quantizer" if quantizer == linear.weight_quantizer else "input_quantizer"
    return tuple(dict.fromkeys((quantizer, singular, f"{singular}s", f"{linear.name}.{kind}")))


def match_rules(
    rules: tuple[Rule, ...],
    exclude: tuple[str, ...],
    inventory: Inventory,
    *,
    matching: Matching = Matching.OWN,
) -> tuple[Match, ...]:
    """Decide for each linear layer of `inventory`.

    Raises:
        RecipeError: a rule matches nothing, matches some experts of a layer only, or has no
            effect because everything that it matches is excluded.
    """
    patterns = [(rule.quantizer, rule.format) for rule in rules]
    matcher = _Matcher(inventory.linears, matching)
    hits = {pattern: matcher.hits(pattern) for pattern, _ in patterns}
    barred = {pattern: matcher.hits(pattern) for pattern in exclude}
    for pattern, found in hits.items():
        if not found and matching is Matching.OWN:
            _refuse_unmatched(pattern, inventory)
    stacks = _experts_of(inventory)
    for pattern, found in (hits | barred).items():
        _refuse_partial(pattern, found, stacks)
    choices: dict[str, Choice] = {}
    for pattern, form in patterns:
        chosen = Choice(None if form == OFF else form, pattern)
        choices |= dict.fromkeys(hits[pattern], chosen)
    for pattern, found in barred.items():
        choices |= dict.fromkeys(found, Choice(None, pattern))
    if matching is Matching.OWN:
        _refuse_shadowed(patterns, hits, choices)
    else:
        _refuse_kept(patterns, inventory)
    unmatched = Choice(None, "no rule")
    return tuple(
        Match(
            linear,
            choices.get(f"{linear.name} weight", unmatched),
            choices.get(f"{linear.name} input", unmatched),
        )
        for linear in inventory.linears
    )


class _Matcher:
    """Finds the quantizers that a pattern reaches; each is keyed `<linear> weight|input`.

    A pattern that asks for no number and for no single character takes layers whose names differ
    in their numbers alike: of 30,000 layers with experts it is asked some 20 times.
    """

    def __init__(self, linears: Iterable[Linear], matching: Matching) -> None:
        self._matching = matching
        self._alike: dict[tuple[str, ...], list[Linear]] = defaultdict(list)
        without_numbers = _WithoutNumbers()
        for linear in linears:
            names = (linear.weight_quantizer, linear.input_quantizer, linear.name)
            self._alike[tuple(without_numbers[name] for name in names)].append(linear)

    def hits(self, pattern: str) -> set[str]:
        takes_alike = _ASKS_FOR_ONE.search(pattern) is None
        matches = re.compile(fnmatch.translate(pattern)).match
        found: set[str] = set()
        for layers in self._alike.values():
            if takes_alike:
                kinds = self._kinds(layers[0], matches)
                found.update(f"{one.name} {kind}" for kind in kinds for one in layers)
            else:
                for one in layers:
                    found.update(f"{one.name} {kind}" for kind in self._kinds(one, matches))
        return found

    def _kinds(self, linear: Linear, matches: Callable[[str], object]) -> Iterator[str]:
        quantizers = {"weight": linear.weight_quantizer, "input": linear.input_quantizer}
        for kind, quantizer in quantizers.items():
            if any(map(matches, names_of(quantizer, linear, matching=self._matching))):
                yield kind


class _WithoutNumbers(dict[str, str]):
    """Names with each number as 0, by name: experts of a layer share a quantizer."""

    def __missing__(self, name: str) -> str:
        self[name] = alike = _NUMBERS.sub("0", name)
        return alike


def _refuse_unmatched(pattern: str, inventory: Inventory) -> None:
    known = {
        _NUMBER.sub("*", name)
        for linear in inventory.linears
        for quantizer in (linear.weight_quantizer, linear.input_quantizer)
        for name in names_of(quantizer, linear)[1:2]
    }
    if not known:
        message = (
            f"this {inventory.model_type} model has nothing to quantize: no linear layer "
            "(torch.nn.Linear) and no stack of experts was found in its decoder."
        )
        raise RecipeError(message, reason=ReasonCode.RULE_MATCHES_NOTHING)
    close = nearest(pattern, known) or sorted(known)[:3]
    hint = " This model has no routed experts." if not _has_experts(inventory) else ""
    message = (
        f"rule '{pattern}' matches no quantizer of this {inventory.model_type} model.{hint} "
        f"Nearest names: {', '.join(close)}. Mend the rule, or choose another --qformat."
    )
    raise RecipeError(message, reason=ReasonCode.RULE_MATCHES_NOTHING)


def _has_experts(inventory: Inventory) -> bool:
    return any(linear.is_routed for linear in inventory.linears)


def _experts_of(inventory: Inventory) -> dict[tuple[str, str, str], dict[str, int]]:
    """Return each stack of experts, by layer, projection and kind: their numbers by key."""
    stacks: dict[tuple[str, str, str], dict[str, int]] = defaultdict(dict)
    for linear in inventory.linears:
        if linear.experts is None or linear.expert is None:
            continue
        projection = linear.name.rpartition(".")[2]
        for kind in ("weight", "input"):
            stacks[linear.experts, projection, kind][f"{linear.name} {kind}"] = linear.expert
    return stacks


def _refuse_partial(
    pattern: str, found: set[str], stacks: Mapping[tuple[str, str, str], Mapping[str, int]]
) -> None:
    for (layer, projection, kind), experts in stacks.items():
        missing = experts.keys() - found
        if missing and len(missing) < len(experts):
            message = (
                f"rule '{pattern}' matches {len(experts) - len(missing)} of {len(experts)} experts "
                f"of '{layer}' ({projection}, {kind}); the first left out is expert "
                f"{min(experts[key] for key in missing)}. "
                "Engines load the experts of a layer as one: write the rule without an index, "
                f"such as '*{layer.rpartition('.')[2]}*{kind}_quantizer'."
            )
            raise RecipeError(message, reason=ReasonCode.RULE_MATCHES_SOME_EXPERTS)


def _refuse_kept(patterns: list[tuple[str, str]], inventory: Inventory) -> None:
    """Refuse rules that leave a layer on which is never quantized here, such as a tower's.

    Routers are no linear layers to Model-Optimizer, its recipes turn embeddings off by their class,
    and draft heads are not in the running model.
    """
    for module, what in inventory.unquantizable.items():
        if what in _NOT_THERE:
            continue
        for kind in ("weight_quantizer", "input_quantizer"):
            name = f"{module}.{kind}"
            last = next((p for p in reversed(patterns) if fnmatch.fnmatchcase(name, p[0])), None)
            if last is not None and last[1] != OFF:
                message = (
                    f"rule '{last[0]}' turns on '{name}' ({what}), which harness never quantizes. "
                    f"Turn it off behind that rule: {{quantizer_name: '{module}*', enable: false}}."
                )
                raise RecipeError(message)


def _refuse_shadowed(
    patterns: list[tuple[str, str]], hits: Mapping[str, set[str]], choices: Mapping[str, Choice]
) -> None:
    deciding = {choice.rule for choice in choices.values()}
    for pattern, form in patterns:
        if form != OFF and pattern not in deciding:
            winner = choices[min(hits[pattern])].rule
            message = (
                f"rule '{pattern}' has no effect: each of the {len(hits[pattern])} quantizers that "
                f"it matches is decided by a later one, such as '{winner}'. "
                "Mend the rule or remove it."
            )
            raise RecipeError(message, reason=ReasonCode.RULE_MATCHES_NOTHING)
