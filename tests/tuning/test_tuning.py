"""From a tiny model to its frontier and recipe; the gate is another test's."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness.artifacts import LEFT, Frontier, Point
from harness.errors import RunDirectoryError
from harness.export import bits_per_weight
from harness.recipe import Request, load_recipe, plan
from harness.report.frontier import plot_frontier
from harness.tuning import measuring
from harness.tuning.measuring import (
    SENSITIVITIES_FILE,
    frontier_of_recipes,
    sensitivities_of,
)
from harness.tuning.rules import number_patterns, recipe_for
from harness.tuning.units import bits_of
from harness.tuning.writing import recipe_text
from tests.tuning.conftest import Prepare

MODELS = ("qwen3_5_moe", "qwen3_moe", "mixtral", "qwen3")


@pytest.fixture
def sensitive_qwen3(tiny_qwen3: Path, tmp_path: Path) -> Path:
    """A model whose output is made by one matrix of its last layer nearly alone."""
    folder = Path(shutil.copytree(tiny_qwen3, tmp_path / "sensitive"))
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] *= 30
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_a_sensitive_unit_is_kept_in_more_bits(sensitive_qwen3: Path, prepare: Prepare) -> None:
    work = prepare(sensitive_qwen3, bits=6, formats="nvfp4,fp8")
    work.folder.mkdir()
    found = sensitivities_of(work)
    frontier = frontier_of_recipes(work, found)
    chosen = [one for one in frontier.made() if one.bits < 6.005][-1]
    assert chosen.choice["model.layers.1.mlp.down_proj"] == "fp8"
    assert "nvfp4" in chosen.choice.values()
    uniform = next(one for one in frontier.uniform if one.name == "all nvfp4")
    assert (chosen.measured or 0) < (uniform.measured or 0)


def test_what_was_measured_is_not_measured_again(
    tiny_qwen3: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = prepare(tiny_qwen3, bits=6)
    work.folder.mkdir()
    found = sensitivities_of(work)
    frontier = frontier_of_recipes(work, found)
    monkeypatch.delattr(measuring, "divergences")
    assert sensitivities_of(work) == found
    assert frontier_of_recipes(work, found) == frontier


@pytest.mark.parametrize("name", MODELS)
def test_a_recipe_says_what_was_chosen_and_nothing_else(
    name: str, tiny_models: dict[str, Path], prepare: Prepare
) -> None:
    work = prepare(tiny_models[name], formats="nvfp4,w4a16_nvfp4,fp8,none")
    draw = torch.Generator().manual_seed(0)
    for _ in range(5):
        choice = {}
        for unit in work.space.units:
            names = [*unit.options, LEFT]
            choice[unit.name] = names[int(torch.randint(len(names), (), generator=draw))]
        recipe = recipe_for(work.space, choice, work.job.inventory)
        found = {
            one.linear.name: (one.weight_format, one.input_format)
            for one in plan(recipe, work.job.inventory).quantized
        }
        wanted = {
            linear.name: (
                work.space.choices[choice[unit.name]].weight_format,
                work.space.choices[choice[unit.name]].input_format,
            )
            for unit in work.space.units
            for linear in unit.linears
            if choice[unit.name] != LEFT
        }
        assert found == wanted


def test_its_file_is_read_as_any_other_recipe(tiny_qwen3: Path, prepare: Prepare) -> None:
    work = prepare(tiny_qwen3, bits=6, algorithm="mse")
    work.folder.mkdir()
    point = frontier_of_recipes(work, sensitivities_of(work)).points[2]
    recipe = recipe_for(work.space, point.choice, work.job.inventory)
    path = work.folder / "mine.yaml"
    path.write_text(recipe_text(recipe, point))
    request = Request(model=str(tiny_qwen3), recipe=path, suite="smoke", device="cpu")
    read = load_recipe(request)
    assert (read.rules, read.exclude) == (recipe.rules, recipe.exclude)
    assert str(read.algorithm) == "scales by mse"
    assert yaml.safe_load(path.read_text())["description"].startswith("Tuned for")


@pytest.mark.parametrize("name", MODELS)
def test_bits_are_those_that_a_plan_prints(
    name: str, tiny_models: dict[str, Path], prepare: Prepare
) -> None:
    work = prepare(tiny_models[name])
    choice = {unit.name: "nvfp4" for unit in work.space.units}
    planned = plan(recipe_for(work.space, choice, work.job.inventory), work.job.inventory)
    total = sum(bits_of(unit, "nvfp4") for unit in work.space.units)
    count = sum(unit.num_weights for unit in work.space.units)
    assert total / count == pytest.approx(bits_per_weight(planned))


def test_layers_that_differ_alike_share_a_rule(tiny_qwen3_5_moe: Path, prepare: Prepare) -> None:
    work = prepare(tiny_qwen3_5_moe)
    choice = {unit.name: "fp8" if unit.layer > 0 else "nvfp4" for unit in work.space.units}
    recipe = recipe_for(work.space, choice, work.job.inventory)
    assert [rule.quantizer for rule in recipe.rules][:2] == [
        "*weight_quantizer",
        "*input_quantizer",
    ]
    assert len(recipe.rules) == 4


def test_matrices_of_one_unit_share_a_rule(tiny_qwen3: Path, prepare: Prepare) -> None:
    work = prepare(tiny_qwen3)
    choice = {
        unit.name: "fp8" if unit.name.endswith("qkv_proj") else "nvfp4" for unit in work.space.units
    }
    rules = recipe_for(work.space, choice, work.job.inventory).rules
    assert rules[2].quantizer == "model.layers.[01].self_attn.[kqv]_proj.weight_quantizer"
    assert len(rules) == 4


@pytest.mark.parametrize(
    ("numbers", "patterns"),
    [
        ([3], ["3"]),
        (range(3, 8), ["[3-7]"]),
        (range(8, 32), ["[89]", "[12][0-9]", "3[01]"]),
        ([1, 4, 5, 11, 14, 15], ["[145]", "1[145]"]),
    ],
)
def test_numbers_are_said_in_few_patterns(numbers: list[int], patterns: list[str]) -> None:
    assert sorted(number_patterns(numbers)) == sorted(patterns)


def test_a_file_that_was_edited_is_named_with_what_to_do(
    tiny_qwen3: Path, prepare: Prepare
) -> None:
    work = prepare(tiny_qwen3, bits=8)
    work.folder.mkdir()
    sensitivities_of(work)
    path = work.folder / SENSITIVITIES_FILE
    path.write_text(path.read_text().replace('"num_texts": ', '"num_texts": 1'))
    with pytest.raises(RunDirectoryError, match=r"Delete the file: it is measured again\."):
        sensitivities_of(work)


def test_a_frontier_of_nothing_but_zeros_is_drawn() -> None:
    point = Point(
        name="frontier",
        choice={"a": "fp8"},
        num_bits=8,
        bits=8.0,
        kld=0.0,
        measured=0.0,
        stderr=0.0,
    )
    frontier = Frontier(points=(point,), uniform=(), num_texts=2, num_tokens=4)
    assert "</svg>" in plot_frontier(frontier, point)
