"""MATRIX.yaml: which cells there are, what each types, and one clear line a mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import MatrixError
from harness.nightly import Matrix, load_matrix

CELL: dict[str, Any] = {"name": "canary", "model": "canary", "qformat": "nvfp4"}
GATE: dict[str, Any] = {"name": "made-elsewhere", "checkpoint": "made", "baseline": "canary"}
PRODUCT: dict[str, Any] = {
    "name": "moe",
    "with": {"model": "canary"},
    "axes": {
        "qformat": ["nvfp4", "fp8"],
        "build": [
            {"label": "here", "engine": "reference"},
            {"label": "v33", "engine": "vllm", "version": "0.33.0"},
        ],
    },
}


def write(folder: Path, **values: object) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(
        yaml.safe_dump({"version": 1, "name": "m"} | values, sort_keys=False), encoding="utf-8"
    )
    return path


def matrix(folder: Path, *cells: dict[str, Any], **values: object) -> Matrix:
    return load_matrix(write(folder, cells=list(cells), **values))


def mistake(folder: Path, *cells: dict[str, Any], **values: object) -> str:
    with pytest.raises(MatrixError) as found:
        matrix(folder, *cells, **values)
    return str(found.value)


def test_a_cell_types_the_options_that_it_names(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, CELL | {"engine_args": ["a=1", "b=2"], "layerwise": False}).cells
    assert cell.command == (
        *("e2e", "--model=canary", "--qformat=nvfp4", "--whole"),
        *("--engine-arg=a=1", "--engine-arg=b=2"),
    )


def test_a_checkpoint_is_gated_against_its_baseline(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, GATE | {"suite": "canary"}).cells
    assert cell.command == (
        *("gate", str(tmp_path / "made"), "--baseline=canary", "--suite=canary"),
    )


def test_paths_are_those_beside_the_matrix(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").touch()
    cell = {"name": "c", "model": "canary", "recipe": "r.yaml", "suite": "own.yaml"}
    assert matrix(tmp_path, cell).cells[0].command == (
        *("e2e", "--model=canary", f"--recipe={tmp_path / 'r.yaml'}"),
        f"--suite={tmp_path / 'own.yaml'}",
    )


def test_a_version_is_the_environment_that_holds_it(tmp_path: Path) -> None:
    (cell,) = matrix(tmp_path, CELL | {"engine": "vllm", "version": "0.33.0"}).cells
    assert cell.request.vllm == Path.cwd() / ".venv-vllm-0.33.0"


def test_a_product_is_every_combination_but_those_that_are_excluded(tmp_path: Path) -> None:
    product = PRODUCT | {"exclude": [{"qformat": "fp8", "build": "v33"}]}
    assert [cell.name for cell in matrix(tmp_path, products=[product]).cells] == [
        *("moe-nvfp4-here", "moe-nvfp4-v33", "moe-fp8-here"),
    ]


def test_values_of_an_axis_are_called_by_their_last_part(tmp_path: Path) -> None:
    product = {"name": "p", "axes": {"model": ["Org/A model", "Org/B"]}, "with": {"qformat": "fp8"}}
    names = [cell.name for cell in matrix(tmp_path, products=[product]).cells]
    assert names == ["p-A-model", "p-B"]


def test_retries_are_the_matrix_s_where_a_cell_says_none(tmp_path: Path) -> None:
    cells = matrix(tmp_path, CELL, CELL | {"name": "b", "retries": 0}, retries=2).cells
    assert [cell.retries for cell in cells] == [2, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"qformt": "fp8"}, "there is no such key (did you mean 'qformat'?)"),
        ({"gpus": -1}, "gpus: Input should be greater than or equal to 0"),
        ({"gpus": 1, "tensor_parallel_size": 2}, "gpus 1: its servers and ranks take 2"),
        ({"gpus": 1, "device": "cpu"}, "gpus 1, and device is cpu"),
        ({"hardware": "H200"}, "hardware H200: it has no gpus"),
        ({"qformat": None}, "give model with one of qformat and recipe"),
        ({"recipe": "r.yaml"}, "give model with one of qformat and recipe"),
        ({"checkpoint": "made"}, "a checkpoint is compared with baseline"),
        ({"version": "0.33.0"}, "version 0.33.0 is for engine: vllm"),
        ({"retries": 99}, "retries: Input should be less than or equal to 10"),
        ({"name": "a/b"}, "name: String should match pattern"),
        ({"waiver": {"reason": "r", "approver": "", "expires": "2031-01-01"}}, "waiver.approver"),
        ({"waiver": {"reason": "r", "approver": "a", "expires": 1}}, "2031-12-31"),
    ],
)
def test_a_mistake_in_a_cell_is_said_with_the_cell(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    found = mistake(tmp_path, {k: v for k, v in (CELL | change).items() if v is not None})
    assert f"'{tmp_path / 'matrix.yaml'}', cell '" in found
    assert said in found


def test_an_option_of_the_other_command_is_refused(tmp_path: Path) -> None:
    found = mistake(tmp_path, GATE | {"qformat": "nvfp4"})
    assert "qformat is for a cell that makes its checkpoint" in found


def test_mistakes_of_all_cells_are_said_at_once(tmp_path: Path) -> None:
    found = mistake(tmp_path, CELL | {"gpus": -1}, GATE | {"retries": "many"})
    assert "cell 'canary', gpus" in found
    assert "cell 'made-elsewhere', retries" in found


def test_a_matrix_without_cells_is_refused(tmp_path: Path) -> None:
    assert "it has 0 cells" in mistake(tmp_path)


def test_cells_whose_folders_would_be_one_are_refused(tmp_path: Path) -> None:
    assert "two cells are called 'canary'" in mistake(tmp_path, CELL, CELL | {"name": "Canary"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exclude": [{"qformat": "mxfp4"}]}, "exclude {'qformat': 'mxfp4'} leaves nothing out"),
        ({"exclude": [{}]}, "exclude {} leaves nothing out"),
        ({"axes": {"qformat": []}}, "axis 'qformat' has no values"),
        ({"axes": {"qformat": ["fp8", "fp8"]}}, "axis 'qformat' has 'fp8' twice"),
        ({"axes": {"qformat": [{"qformat": "fp8"}]}}, "needs a label"),
        ({"with": {"model": "canary", "qformat": "fp8"}}, "'qformat' of axis 'qformat' is said"),
        ({"with": {"name": "other"}}, "'name' of with is said already"),
        ({"axes": {name: list(range(40)) for name in ("a", "b")}}, "its axes make 1600 cells"),
    ],
)
def test_a_mistake_in_a_product_is_said_with_the_product(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    found = mistake(tmp_path, products=[PRODUCT | change])
    assert "product 'moe': " in found
    assert said in found


def test_a_product_that_excludes_all_of_itself_is_no_matrix(tmp_path: Path) -> None:
    product = PRODUCT | {"exclude": [{"qformat": "nvfp4"}, {"qformat": "fp8"}]}
    assert "it has 0 cells" in mistake(tmp_path, products=[product])


def test_an_unknown_cell_is_said_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(MatrixError, match=r"has no cell 'canry'\. Did you mean 'canary'"):
        matrix(tmp_path, CELL).find(["canry"])
