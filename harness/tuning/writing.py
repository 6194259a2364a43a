"""A tuned recipe as the YAML file that anybody may read, change and type with --recipe."""

from pathlib import Path

import yaml

from harness.artifacts import PLAIN, Point, Recipe, to_json, write_atomically
from harness.shipped import CANARY


def write_recipe(recipe: Recipe, point: Point, path: Path) -> None:
    """Write what a point is made of.

    Raises:
        UsageError: the path is no regular file.
    """
    write_atomically(path, recipe_text(recipe, point))


def recipe_text(recipe: Recipe, point: Point) -> str:
    """Return the file's text: all of a recipe, the rules as one line each."""
    measured = "" if point.measured is None else f"; measured as a whole {point.measured:.4g}"
    about = (
        f"Tuned for {Path(recipe.model).name}: {point.bits:.2f} bits a weight, "
        f"{point.kld:.4g} nats a token by the sum over units{measured}."
    )
    head = {"version": 1, "name": name_of(point), "description": about}
    calibration = {
        key: value
        for key, value in _mapping(to_json(recipe.calibration)).items()
        if key != "batch_tokens"
    }
    if calibration["data"] == (CANARY if recipe.model == CANARY else "default"):
        calibration["data"] = "auto"
    rest: dict[str, object] = {
        "exclude": list(recipe.exclude),
        "kv_cache": recipe.kv_cache.value,
        "wording": recipe.wording.value,
        "matching": recipe.matching.value,
        "expert_scales": recipe.expert_scales.value,
        "calibration": {**calibration, "batch_tokens": recipe.calibration.batch_tokens or "auto"},
        "engine": "auto",
        "suite": "auto",
    }
    if recipe.algorithm != PLAIN:
        rest["algorithm"] = to_json(recipe.algorithm)
    rules = "".join(
        f"  - {{quantizer: {_quoted(rule.quantizer)}, format: {rule.format}}}\n"
        for rule in recipe.rules
    )
    comment = "# wildcards on quantizer names; the last rule that matches wins"
    return f"{_dumped(head)}rules: {comment}\n{rules}{_dumped(rest)}"


def name_of(point: Point) -> str:
    """Return a recipe's name, which a folder may have."""
    kind = point.name.replace(" ", "_") if point.name != "frontier" else "tuned"
    return f"{kind}_{point.bits:.2f}_bits"[:64]


def _dumped(values: dict[str, object]) -> str:
    return yaml.safe_dump(values, sort_keys=False, width=10_000)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _mapping(values: object) -> dict[str, object]:
    if not isinstance(values, dict):
        raise TypeError(type(values))
    return values
