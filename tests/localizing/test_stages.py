"""Each stage is named by what is wrong in it, and by nothing else."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor

from harness.artifacts import OriginStage, Trial
from harness.errors import UsageError
from harness.localizing import LOCALIZATION_FILE, localize
from harness.rundir import open_run
from harness.serve import scales
from tests.localizing.conftest import Made
from tests.typed import typed

EXPERT = "model.layers.1.mlp.experts.5.down_proj"
Change = Callable[[dict[str, Tensor]], None]


def scaled(ranges: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: value * factor for name, value in ranges.items()}


def test_of_a_correct_run_nothing_parts(run: Made) -> None:
    found = localize(run.path)
    assert (found.stage, found.clues) == (None, ())
    assert found.sentence.startswith("nothing parts from 'source' to 'files'; what the recipe")
    gaps = {hop.name: hop.difference for hop in found.hops if hop.looked}
    assert gaps["recorded"] == gaps["files"] == 0.0
    assert gaps["quantized"] is not None
    assert gaps["quantized"] > 0.01


def test_what_was_found_lies_in_the_run_directory(run: Made) -> None:
    found = localize(run.path)
    kept = json.loads((run.path / LOCALIZATION_FILE).read_bytes())
    assert kept["sentence"] == found.sentence


def test_ranges_that_the_data_do_not_give_are_calibration(run: Made) -> None:
    wrong = replace(run.stats, input_amax=scaled(run.stats.input_amax, 0.01))
    run.record(wrong)
    run.export(wrong)
    found = localize(run.path)
    assert found.stage is OriginStage.CALIBRATION
    assert "has a recorded range of 0.01 times what the recipe's data give" in found.sentence


def test_data_that_the_models_inputs_exceed_by_far_are_calibration(
    run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = replace(run.stats, input_amax=scaled(run.stats.input_amax, 0.01))
    run.record(narrow)
    run.export(narrow)
    module = import_module("harness.localizing.localize")
    monkeypatch.setattr(module, "calibrate", lambda *_: narrow)
    found = localize(run.path)
    assert found.stage is OriginStage.CALIBRATION
    assert "times the range that calibration recorded" in found.sentence


def test_a_run_that_ended_without_ranges_is_calibration(run: Made) -> None:
    shutil.rmtree(run.checkpoint)
    for name in ("calibration.json", "calibration.safetensors", "checkpoint.json"):
        (run.path / name).unlink()
    found = localize(run.path)
    assert found.stage is OriginStage.CALIBRATION
    assert "no ranges were recorded, while" in found.sentence


@pytest.mark.parametrize("has_hashes", [True, False])
def test_codes_of_other_ranges_than_the_recorded_are_quantization(
    run: Made, *, has_hashes: bool
) -> None:
    run.export(replace(run.stats, weight_amax=scaled(run.stats.weight_amax, 0.125)))
    if not has_hashes:
        forget_hashes(run.checkpoint)
    found = localize(run.path)
    assert found.stage is OriginStage.QUANTIZATION
    assert "what quantization made" in found.sentence


def forget_hashes(checkpoint: Path) -> None:
    """Leave the manifest without what the export wrote down before it wrote."""
    file = checkpoint / "harness.json"
    manifest = json.loads(file.read_bytes())
    del manifest["tensors_xxh3"]
    file.write_text(json.dumps(manifest))


def larger_scale(tensors: dict[str, Tensor]) -> None:
    tensors[f"{EXPERT}.weight_scale_2"] = 4 * tensors[f"{EXPERT}.weight_scale_2"]


def swapped_halves(tensors: dict[str, Tensor]) -> None:
    codes = tensors[f"{EXPERT}.weight"]
    tensors[f"{EXPERT}.weight"] = (codes >> 4) | (codes << 4)


def another_expert(tensors: dict[str, Tensor]) -> None:
    other = EXPERT.replace(".5.", ".6.")
    for name in [name for name in tensors if name.startswith(f"{EXPERT}.")]:
        tensors[name] = tensors[name.replace(EXPERT, other)].clone()


def zeros(tensors: dict[str, Tensor]) -> None:
    tensors[f"{EXPERT}.weight"] = torch.zeros_like(tensors[f"{EXPERT}.weight"])


def lost_scale(tensors: dict[str, Tensor]) -> None:
    del tensors[f"{EXPERT}.input_scale"]


def one_more(tensors: dict[str, Tensor]) -> None:
    tensors["model.layers.7.extra"] = torch.ones(2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (larger_scale, f"{EXPERT}.weight_scale_2 of the files is 4 times what quantization made"),
        (swapped_halves, "holds what quantization made in another order"),
        (another_expert, f"what quantization made for {EXPERT.replace('.5.', '.6.')}.weight"),
        (zeros, "holds nothing but the byte 0"),
        (lost_scale, f"{EXPERT}.input_scale was made and is not in the files"),
        (one_more, "model.layers.7.extra is in the files and was not to be made"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_are_not_what_was_made_are_the_export(
    run: Made, change: Change, said: str
) -> None:
    run.change(change)
    forget_hashes(run.checkpoint)
    found = localize(run.path)
    assert found.stage is OriginStage.EXPORT
    assert any(said in clue.message for clue in found.clues), found.clues


def test_a_lost_template_is_the_export_though_no_answer_parts(run: Made) -> None:
    (run.checkpoint / "chat_template.jinja").unlink()
    found = localize(run.path)
    assert found.stage is OriginStage.EXPORT
    assert "chat_template.jinja is the source's and is not in the files" in found.sentence
    assert not any(hop.parted for hop in found.hops)


def test_the_layer_that_parts_first_is_named(run: Made) -> None:
    run.change(larger_scale)
    files = next(hop for hop in localize(run.path).hops if hop.name == "files")
    assert files.parted
    assert files.layer == "model.layers.1"


def test_an_engine_that_computes_with_other_scales_is_the_loader(
    run: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = vars(scales)["_merge_inputs"]
    monkeypatch.setattr(
        scales, "_merge_inputs", lambda *given: {k: v / 50 for k, v in merged(*given).items()}
    )
    found = localize(run.path)
    assert found.stage is OriginStage.LOADER
    assert "while all before it is as it should be" in found.sentence


def test_without_the_source_less_is_claimed(run: Made) -> None:
    gone = run.job.source.path.with_name("gone")
    run.job.source.path.rename(gone)
    try:
        found = localize(run.path)
    finally:
        gone.rename(run.job.source.path)
    assert found.stage is None
    assert {hop.name for hop in found.hops if hop.looked} == {"files"}
    assert any(what.startswith("the source") for what in found.unseen)


def test_of_files_made_elsewhere_only_the_engines_are_looked_at(run: Made, tmp_path: Path) -> None:
    recipe = run.job.recipe
    known = {field.name: getattr(recipe, field.name) for field in fields(Trial)}
    trial = Trial(**known | {"checkpoint": str(run.checkpoint)})
    with open_run(tmp_path / "gate", trial):
        pass
    found = localize(tmp_path / "gate")
    assert {hop.name for hop in found.hops if hop.looked} == {"source", "files"}
    assert (found.stage, found.clues) == (None, ())
    assert any("made elsewhere" in what for what in found.unseen)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a run directory"):
        localize(tmp_path)


def test_the_sentence_comes_first_and_work_that_is_done_is_exit_0(run: Made) -> None:
    run.change(larger_scale)
    done = typed("localize", str(run.path))
    assert done.code == 0
    assert done.out.startswith(f"export: {EXPERT}.weight_scale_2 of the files is 4 times")
