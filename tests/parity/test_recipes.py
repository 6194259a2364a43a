"""Model-Optimizer's own recipes: each is refused by name, or turns on what Model-Optimizer does."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness import shipped
from harness.artifacts import KvFormat, QuantPlan
from harness.errors import RecipeError
from harness.models import open_source, read_inventory
from harness.recipe import Request, load_recipe, plan
from tests.tiers import slow

_BLOCKS_OF_16 = (("-1", 16), ("scale_bits", (4, 3)), ("type", "dynamic"))
_STATIC_16 = (("-1", 16), ("scale_bits", (4, 3)), ("type", "static"))
_FOUR_OR_SIX_16 = (("-1", 16), ("four_over_six", True), *_STATIC_16[1:])
_BLOCKS_OF_32 = (("-1", 32), ("scale_bits", (8, 0)), ("type", "dynamic"))
NUMBERS: Mapping[tuple[object, ...], str] = {
    ((2, 1), None, False, _BLOCKS_OF_16): "nvfp4",
    ((2, 1), None, False, _STATIC_16): "nvfp4",
    ((2, 1), None, False, _FOUR_OR_SIX_16): "nvfp4",
    ((4, 3), None, False, ()): "fp8",
    ((4, 3), 0, False, ()): "fp8_channel",
    ((4, 3), None, True, (("-1", None),)): "fp8_token",
    ((4, 3), None, False, (("-1", 128), ("-2", 128))): "fp8_block",
    ((4, 3), None, False, _BLOCKS_OF_32): "mxfp8",
    ((2, 1), None, False, _BLOCKS_OF_32): "mxfp4",
}
REFUSED_FOR_THE_MODEL = (
    "fp8_per_channel_per_token",  # routed experts
    "w4a8_mxfp4_fp8",
    "nvfp4_w4a16",  # FP8 weights without inputs
    *("DeepSeek-V4-Pro", "step3p7"),  # what they quantize is not there
    "Step-3.5-Flash",  # it leaves the vision tower on, which is never quantized here
)


def recipes() -> list[Path]:
    spec = importlib.util.find_spec("modelopt_recipes")
    if spec is None or not spec.submodule_search_locations:
        return []
    return sorted(Path(spec.submodule_search_locations[0]).rglob("*.y*ml"))


def converted() -> dict[str, QuantPlan | None]:
    """The plan for the canary by recipe; None where the model does not fit it."""
    inventory = read_inventory(open_source("canary"))
    found: dict[str, QuantPlan | None] = {}
    for path in recipes():
        try:
            recipe = load_recipe(Request(model="canary", recipe=path))
        except RecipeError:
            continue
        try:
            found[str(path)] = plan(recipe, inventory)
        except RecipeError:
            found[str(path)] = None
    return found


@pytest.fixture(scope="module")
def plans() -> dict[str, QuantPlan | None]:
    if not recipes():
        pytest.skip("nvidia-modelopt is not installed (extra `parity`)")
    return converted()


@pytest.fixture(scope="module")
@slow("nvidia-modelopt is imported")
def theirs(
    plans: dict[str, QuantPlan | None], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, str]]:
    """Formats of the quantizers that are on, by recipe."""
    if importlib.util.find_spec("modelopt") is None:
        pytest.skip("nvidia-modelopt is not installed (extra `parity`)")
    folder = tmp_path_factory.mktemp("recipes")
    model = str(shipped.canary() / "model")
    job = {"model": model, "recipes": sorted(plans), "into": str(folder / "found")}
    (folder / "job").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("peer_recipes.py")
    command = [sys.executable, str(script), str(folder / "job")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((folder / "found").read_bytes())
    return {
        path: {
            name: format_of(attributes)
            for name, attributes in on.items()
            if not is_of_a_tower(name)
        }
        for path, on in found.items()
    }


def is_of_a_tower(quantizer: str) -> bool:
    """Keys and values of a vision tower, which no engine keeps: two recipes leave theirs on."""
    return ".visual." in quantizer and quantizer.endswith("_bmm_quantizer")


def format_of(attributes: dict[str, Any]) -> str:
    blocks = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in attributes["block_sizes"].items()
    }
    is_dynamic = attributes["dynamic"] and "type" not in blocks
    bits = attributes["num_bits"]
    key = (
        tuple(bits) if isinstance(bits, list) else bits,
        attributes["axis"],
        is_dynamic,
        tuple(sorted(blocks.items())),
    )
    return NUMBERS.get(key, str(key)) + (" cast" if attributes["constant"] else "")


def turned_on(chosen: QuantPlan) -> dict[str, str]:
    """The same of a plan."""
    found = {q.linear.weight_quantizer: q.weight_format for q in chosen.quantized}
    found |= {q.linear.input_quantizer: q.input_format for q in chosen.quantized if q.input_format}
    kind = chosen.kv_cache.replace("_", " ") if chosen.kv_cache != KvFormat.NONE else None
    if kind:
        found |= {a.k_quantizer: kind for a in chosen.attentions}
        found |= {a.v_quantizer: kind for a in chosen.attentions}
    return found


def test_a_recipe_turns_on_what_model_optimizer_turns_on(
    plans: dict[str, QuantPlan | None], theirs: dict[str, dict[str, str]]
) -> None:
    made = {path: turned_on(chosen) for path, chosen in plans.items() if chosen is not None}
    assert len(made) > 25
    assert made == {path: theirs[path] for path in made}


def test_a_recipe_is_found_by_its_name_in_the_installed_package(
    plans: dict[str, QuantPlan | None],
) -> None:
    assert plans
    name = Path("general/ptq/fp8_default-kv_fp8")
    recipe = load_recipe(Request(model="canary", recipe=name))
    assert (recipe.name, recipe.kv_cache) == ("fp8_default-kv_fp8", KvFormat.FP8)


def test_what_is_planned_for_no_model_like_the_canary_is_refused_then(
    plans: dict[str, QuantPlan | None],
) -> None:
    refused = [path for path, chosen in plans.items() if chosen is None]
    assert all(any(name in path for name in REFUSED_FOR_THE_MODEL) for path in refused), refused


def test_every_other_recipe_is_refused_with_its_first_key(
    plans: dict[str, QuantPlan | None],
) -> None:
    for path in recipes():
        if str(path) in plans:
            continue
        with pytest.raises(RecipeError, match=r"is not supported\.") as caught:
            load_recipe(Request(model="canary", recipe=path))
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(f"'{path}', ")
