"""What the shipped recipes make, told from their rules without a model."""

from dataclasses import dataclass

from harness import shipped
from harness.artifacts import KvFormat, Rule
from harness.errors import RecipeError
from harness.formats import scheme_of
from harness.recipe.load import recipe_names
from harness.recipe.rules import OFF
from harness.recipe.schema import RecipeFile, read_yaml

_WEIGHT, _INPUT = "weight_quantizer", "input_quantizer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a recipe makes of a model whose layers all its rules reach."""

    name: str
    """As --qformat takes it."""
    description: str
    schemes: tuple[str, ...]
    """Of its layers, in the order of the rules."""
    kv_cache: KvFormat


def shipped_formats() -> tuple[Made, ...]:
    """Return what each shipped recipe makes, by name.

    Raises:
        RecipeError: a recipe is malformed.
    """
    return tuple(map(_made, recipe_names()))


def _made(name: str) -> Made:
    file = read_yaml(shipped.recipes() / f"{name}.yaml", RecipeFile, RecipeError)
    return Made(
        name=file.name,
        description=file.description,
        schemes=tuple(dict.fromkeys(_schemes(file.rules))),
        kv_cache=file.kv_cache,
    )


def _schemes(rules: tuple[Rule, ...]) -> list[str]:
    """Return the scheme of each rule for weights; its twin for inputs has the same pattern."""
    formats = {rule.quantizer: rule.format for rule in rules}
    return [
        scheme_of(rule.format, formats.get(rule.quantizer.replace(_WEIGHT, _INPUT)))
        for rule in rules
        if _WEIGHT in rule.quantizer and rule.format != OFF
    ]
