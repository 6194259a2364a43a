"""`harness formats`: what can be made, and what loads it."""

import json
from itertools import product
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.engines import CAPABILITIES
from harness.formats import get_scheme
from harness.recipe import Request, load_recipe, recipe_names, shipped_formats


def listed() -> dict[str, dict[str, Any]]:
    done = CliRunner().invoke(app, ["formats", "--json"])
    assert done.exit_code == 0
    return {one["name"]: one for one in json.loads(done.stdout)["formats"]}


def test_every_shipped_format_is_listed_with_its_size() -> None:
    found = listed()
    assert sorted(found) == recipe_names()
    assert found["nvfp4"]["bits_per_weight"] == {"NVFP4": 4.5}
    assert found["mxfp8"]["bits_per_weight"] == {"MXFP8": 8.25}
    assert found["w4a16_nvfp4_fp8_attention"]["algorithms"] == ["W4A16_NVFP4", "FP8"]


@pytest.mark.parametrize("name", ["nvfp4", "fp8_block", "mxfp4"])
def test_what_loads_a_format_is_what_the_capabilities_say(name: str) -> None:
    found = listed()[name]
    (algorithm,) = found["algorithms"]
    engines = [
        {"engine": f"vllm {one.version} {one.platform}", "layers": layers}
        for one in CAPABILITIES
        for layers, names in (
            ("all", one.schemes["modelopt"].everywhere),
            ("dense", one.schemes["modelopt"].dense_only),
        )
        if algorithm in names
    ]
    assert found["loaded_by"] == [*engines, {"engine": "reference", "layers": "all"}]


def test_the_table_says_so_where_no_vllm_loads_a_format() -> None:
    done = CliRunner().invoke(app, ["formats"])
    line = next(one for one in done.stdout.splitlines() if one.startswith("mxfp4"))
    assert "no vllm, reference" in line


def test_a_recipes_schemes_are_told_from_its_rules() -> None:
    made = {one.name: one.schemes for one in shipped_formats()}
    assert made["fp8_per_channel_per_token"] == ("FP8_PER_CHANNEL_PER_TOKEN",)
    assert all(get_scheme(scheme) for schemes in made.values() for scheme in schemes)


def test_every_ending_that_is_listed_makes_a_format_of_an_nvfp4() -> None:
    done = CliRunner().invoke(app, ["formats", "--json"])
    endings = json.loads(done.stdout)["endings"]
    each = [["", *(f"_{one}" for one in some)] for some in endings.values()]
    for chosen in product(*each):
        recipe = load_recipe(Request(model="canary", qformat=f"nvfp4{''.join(chosen)}"))
        algorithm = recipe.algorithm
        plain = {"smoothing": "none", "inputs": "max", "scales": "max", "rounding": "nearest"}
        for name, ending in zip(endings, chosen, strict=True):
            assert str(getattr(algorithm, name)) == (ending.removeprefix("_") or plain[name])
