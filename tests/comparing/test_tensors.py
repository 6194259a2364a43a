"""Two checkpoints are compared tensor by tensor, scales by how far they moved."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from harness.artifacts import TensorChange, TensorGroup
from harness.comparing.tensors import compare_checkpoints
from tests.comparing.conftest import NORM, SCALE, TENSORS, WEIGHT


def groups(tmp_path: Path, other: dict[str, Tensor]) -> list[TensorGroup]:
    for name, tensors in (("a", TENSORS), ("b", other)):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
    return list(compare_checkpoints(tmp_path / "a", tmp_path / "b").groups)


def test_a_scale_that_moved_is_said_with_its_ratio(tmp_path: Path) -> None:
    (group,) = groups(tmp_path, {**TENSORS, SCALE: torch.tensor(0.125)})
    assert group.pattern == "model.layers.*.up_proj.input_scale"
    assert group.ratio == (0.25, 0.25, 0.25)


def test_values_of_a_scale_that_did_not_move_are_left_out_of_the_ratio(tmp_path: Path) -> None:
    name = "model.layers.0.up_proj.weight_scale"
    for folder, values in (("a", [1.0, 2.0, 4.0]), ("b", [1.0, 4.0, 2.0])):
        (tmp_path / folder).mkdir()
        save_file({name: torch.tensor(values)}, tmp_path / folder / "model.safetensors")
    (group,) = compare_checkpoints(tmp_path / "a", tmp_path / "b").groups
    assert group.ratio is not None
    assert (group.ratio[0], group.ratio[2]) == (0.5, 2.0)


def test_a_scale_that_became_zero_has_no_ratio_and_is_counted(tmp_path: Path) -> None:
    (group,) = groups(tmp_path, {**TENSORS, SCALE: torch.tensor(0.0)})
    assert (group.ratio, group.num_unusual) == (None, 1)


def test_a_lost_tensor_is_named(tmp_path: Path) -> None:
    rest = {name: tensor for name, tensor in TENSORS.items() if name != SCALE}
    (group,) = groups(tmp_path, rest)
    assert (group.change, group.examples[0].partition(":")[0]) == (TensorChange.LOST, SCALE)


def test_an_added_and_a_retyped_tensor_are_told_apart(tmp_path: Path) -> None:
    other = {**TENSORS, NORM: torch.ones(4), "lm_head.weight": torch.ones(2)}
    found = {group.pattern: group.change for group in groups(tmp_path, other)}
    assert found == {NORM: TensorChange.RETYPED, "lm_head.weight": TensorChange.ADDED}


def test_a_weight_with_other_values_says_which_share_of_them(tmp_path: Path) -> None:
    weight = TENSORS[WEIGHT].clone()
    weight[0, 0] = 255
    (group,) = groups(tmp_path, {**TENSORS, WEIGHT: weight})
    assert (group.share, group.ratio) == (1 / 8, None)


def test_tensors_that_lie_in_other_files_are_the_same(tmp_path: Path) -> None:
    assert groups(tmp_path, dict(reversed(TENSORS.items()))) == []


def test_a_checkpoint_that_is_gone_is_not_compared(tmp_path: Path) -> None:
    found = compare_checkpoints(tmp_path, "'x' is not there")
    assert found.note == "not compared: B, 'x' is not there"
