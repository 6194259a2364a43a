"""Turn what was typed into a recipe, and a recipe into a plan for each weight of a model."""

from harness.recipe.algorithms import ENDINGS, endings
from harness.recipe.catalogue import Made, shipped_formats
from harness.recipe.load import (
    load_deployments,
    load_engine,
    load_missing_evidence,
    load_recipe,
    load_trial,
    recipe_names,
)
from harness.recipe.names import first_double, nearest
from harness.recipe.plan import plan
from harness.recipe.schema import Strict, mistakes_in, read_yaml
from harness.recipe.smoke import load_smoke
from harness.recipe.suites import load_suite, suite_of
from harness.request import Request

__all__ = [
    "ENDINGS",
    "Made",
    "Request",
    "Strict",
    "endings",
    "first_double",
    "load_deployments",
    "load_engine",
    "load_missing_evidence",
    "load_recipe",
    "load_smoke",
    "load_suite",
    "load_trial",
    "mistakes_in",
    "nearest",
    "plan",
    "read_yaml",
    "recipe_names",
    "shipped_formats",
    "suite_of",
]
