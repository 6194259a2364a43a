"""A recipe with an algorithm, from the command's words to the checkpoint's files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from harness import pipeline, shipped
from harness.errors import RecipeError, UsageError
from harness.preflight import preflight
from harness.recipe import Request, load_recipe
from tests.quantized import quantized
from tests.stored import read_tensors

Make = Callable[..., Path]
ENDINGS = ("mse", "four_over_six", "local_hessian", "gptq", "local_hessian_gptq")


@pytest.fixture
def make(calibration_jsonl: Path, tmp_path: Path) -> Make:
    """Return a function that makes a checkpoint, checked, and returns its folder."""

    def made(model: Path, qformat: str) -> Path:
        return quantized(model, qformat, calibration_jsonl, tmp_path / qformat)

    return made


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


@pytest.mark.parametrize("ending", ENDINGS)
def test_engines_are_told_the_same_as_without(make: Make, tiny_mixtral: Path, ending: str) -> None:
    plain, found = make(tiny_mixtral, "nvfp4"), make(tiny_mixtral, f"nvfp4_{ending}")
    for name in ("config.json", "hf_quant_config.json"):
        assert json.loads((found / name).read_bytes()) == json.loads((plain / name).read_bytes())
    one, other = read_tensors(plain), read_tensors(found)
    assert {n: (t.dtype, t.shape) for n, t in one.items()} == {
        n: (t.dtype, t.shape) for n, t in other.items()
    }
    changed = {
        name.rpartition(".")[2]
        for name, tensor in one.items()
        if not torch.equal(as_bytes(tensor), as_bytes(other[name]))
    }
    assert changed
    assert changed <= {"weight", "weight_scale", "weight_scale_2"}


def test_headroom_changes_scales_of_inputs_alone(make: Make, tiny_mixtral: Path) -> None:
    plain, found = make(tiny_mixtral, "nvfp4"), make(tiny_mixtral, "nvfp4_act_headroom")
    one, other = read_tensors(plain), read_tensors(found)
    changed = {n for n, t in one.items() if not torch.equal(as_bytes(t), as_bytes(other[n]))}
    assert changed
    assert all(name.endswith(".input_scale") for name in changed)


def test_headroom_for_inputs_that_are_not_quantized_is_refused(
    make: Make, tiny_mixtral: Path
) -> None:
    with pytest.raises(RecipeError, match="is for nvfp4 inputs, and its rules make none"):
        make(tiny_mixtral, "w4a16_nvfp4_act_headroom")


def test_weights_alone_are_calibrated_where_the_algorithm_asks_for_inputs(
    make: Make, tiny_qwen3_5_moe: Path
) -> None:
    folder = make(tiny_qwen3_5_moe, "w4a16_nvfp4_local_hessian_gptq")
    stats = json.loads((folder.parent / "calibration.json").read_bytes())
    assert stats["num_tokens"] > 0
    assert not [name for name in read_tensors(folder) if name.endswith("input_scale")]


def test_the_name_of_a_format_may_end_with_an_algorithm() -> None:
    plain, found = (
        load_recipe(Request(model="canary", qformat=name, device="cpu"))
        for name in ("nvfp4", "nvfp4_mse_gptq")
    )
    assert (plain.name, found.name) == ("nvfp4", "nvfp4_mse_gptq")
    assert str(found.algorithm) == "scales by mse, rounded by gptq"
    assert plain.rules == found.rules


def test_an_algorithm_for_numbers_that_the_rules_do_not_make_is_refused(
    make: Make, tiny_mixtral: Path
) -> None:
    with pytest.raises(RecipeError, match=r"rounded by gptq\) is for nvfp4 weights"):
        make(tiny_mixtral, "fp8_gptq")


@pytest.mark.parametrize(
    ("options", "said"),
    [({"layerwise": False}, "Type --layerwise"), ({"ranks": 2}, "Type --ranks 1")],
)
def test_inputs_are_seen_layer_by_layer_in_one_process(
    options: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load_recipe(Request(model="canary", qformat="nvfp4_gptq", device="cpu", **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["gptq", "mse"])
def test_a_run_that_ended_before_its_checkpoint_was_whole_makes_the_same_one(
    make: Make, tiny_mixtral: Path, ending: str
) -> None:
    whole = read_tensors(make(tiny_mixtral, f"nvfp4_{ending}"))
    folder = make(tiny_mixtral, f"nvfp4_{ending}")
    shutil.rmtree(folder)  # what the calibration measured is there still
    (folder.parent / "checkpoint.json").unlink()
    again = read_tensors(make(tiny_mixtral, f"nvfp4_{ending}"))
    assert all(torch.equal(as_bytes(whole[name]), as_bytes(x)) for name, x in again.items())
    assert whole.keys() == again.keys()


def test_another_version_of_harness_makes_the_checkpoint_again(
    make: Make, tiny_mixtral: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read_tensors(make(tiny_mixtral, "nvfp4_gptq"))
    monkeypatch.setattr(pipeline, "__version__", "of tomorrow")
    again = read_tensors(make(tiny_mixtral, "nvfp4_gptq"))
    assert all(torch.equal(as_bytes(whole[name]), as_bytes(x)) for name, x in again.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"damping": 0.1}, "damping of 0.1 is GPTQ's"),
        ({"rounding": "gptq"}, "reaches 'lm_head'"),
    ],
)
def test_a_recipe_that_asks_for_what_cannot_be_is_refused_before_it_runs(
    change: dict[str, object], said: str, tiny_mixtral: Path, tmp_path: Path
) -> None:
    shipped_recipe = yaml.safe_load((shipped.recipes() / "nvfp4.yaml").read_text())
    shipped_recipe["algorithm"] = change
    shipped_recipe["exclude"].remove("*lm_head*")
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(shipped_recipe))
    request = Request(model=str(tiny_mixtral), recipe=path, device="cpu")
    with pytest.raises(RecipeError, match=said):
        preflight(request, into=tmp_path / "run", scored=False)


@pytest.mark.parametrize("name", ["nvfp4_gptq_mse", "nvfp4_mse_four_over_six", "nvfp5_gptq"])
def test_endings_in_another_order_are_told_with_the_right_one(name: str) -> None:
    with pytest.raises(RecipeError, match=f"unknown format '{name}'.*then _gptq"):
        load_recipe(Request(model="canary", qformat=name, device="cpu"))


def test_an_unknown_ending_is_an_unknown_format() -> None:
    with pytest.raises(RecipeError, match="unknown format 'nvfp4_gptqq'"):
        load_recipe(Request(model="canary", qformat="nvfp4_gptqq", device="cpu"))
