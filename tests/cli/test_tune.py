"""`harness tune` as it is typed: what is refused, the plan, and a run to the gate's verdict."""

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Cli
from tests.tiers import slow

ENGINE = ("--engine", "reference", "--device", "cpu")


def refused(cli: Cli, folder: Path, *arguments: object) -> str:
    """Type it in an empty folder; return the line, having checked exit 2 and nothing written."""
    empty = folder / "empty"
    empty.mkdir()
    done = cli("tune", *arguments, cwd=empty)
    assert done.code == 2, done.err
    assert list(empty.iterdir()) == []
    return done.line()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "Type one of --bits 4.8 and --margin SUITE"),
        (("--bits", 5, "--margin", "drill"), "Type one of --bits 4.8 and --margin SUITE"),
        (("--bits", "nan"), "--bits nan: no weight takes so many"),
        (("--bits", 5, "--formats", "none"), "leaves nothing to choose"),
        (("--bits", 5, "--formats", "nvfp4"), "leaves nothing to choose"),
        (("--bits", 5, "--tokens", 2), "--tokens 2: two texts of two tokens are the least"),
        (("--margin", "drill", "--suite", "canary"), "Leave out --suite"),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Cli, tmp_path: Path, arguments: tuple[object, ...], line: str
) -> None:
    assert line in refused(cli, tmp_path, "canary", *arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--bits", 3), "a weight takes 4.50 to "),
        (("--bits", 20), "to 15.97 bits"),
        (("--bits", 5, "--formats", "nvfp5,fp8"), "unknown format 'nvfp5'"),
        (
            ("--bits", 5, "--formats", "w4a16_nvfp4_fp8_attention,fp8"),
            "its recipe has several formats at once",
        ),
        (("--bits", 5, "--algorithm", "magic"), "is none that layers may have apart. Type one of"),
        (("--bits", 5, "--algorithm", "awq"), "is none that layers may have apart. Type one of"),
        (
            ("--bits", 12, "--formats", "fp8,none", "--algorithm", "mse"),
            "--algorithm mse is for nvfp4 weights, and --formats has none",
        ),
        (("--bits", 5, "--whole"), "Leave out --whole"),
    ],
)
def test_what_the_model_cannot_have_is_refused(
    cli: Cli, tmp_path: Path, quick_suite: Path, arguments: tuple[object, ...], line: str
) -> None:
    assert line in refused(cli, tmp_path, "canary", *ENGINE, "--suite", quick_suite, *arguments)


def test_a_folder_of_something_else_is_refused(cli: Cli, tmp_path: Path, quick_suite: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    typed = ("tune", "canary", *ENGINE, "--suite", quick_suite, "--bits", 6)
    for plan in ((), ("--plan",)):
        done = cli(*typed, *plan, "--run-dir", tmp_path)
        assert (done.code, "holds files but no tuning" in done.line()) == (2, True)
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


def test_the_plan_says_what_the_pass_takes(cli: Cli, tmp_path: Path, quick_suite: Path) -> None:
    typed = ("tune", "canary", *ENGINE, "--margin", quick_suite, "--plan")
    said = cli(*typed, cwd=tmp_path)
    assert said.code == 0, said.err
    assert "bits a weight" in said.out
    assert "of hidden states" in said.out
    found = cli(*typed, "--json", cwd=tmp_path).json
    assert found["num_units"] > 8
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
@slow("two passes over the canary and runs of the main job")
def tuned(cli: Cli, quick_suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    done = cli(*typed_for(quick_suite, folder), "--bits", 6, "--suite", quick_suite)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    return folder


def typed_for(suite: Path, folder: Path) -> tuple[object, ...]:
    del suite
    return ("tune", "canary", *ENGINE, "--tokens", 512, "--calib-size", 64, "--run-dir", folder)


def test_its_run_directory_holds_all_that_was_found(tuned: Path) -> None:
    names = {entry.name for entry in tuned.iterdir()}
    files = {"sensitivities.json", "frontier.json", "frontier.svg", "recipe.yaml", "tuning.json"}
    assert files | {"runs", "recipes"} <= names
    found = json.loads((tuned / "tuning.json").read_bytes())
    assert found["best"]["decision"] == "GO"
    assert found["chosen"]["bits"] < 6.005


def test_the_gate_judged_the_recipe_that_is_returned(tuned: Path) -> None:
    found = json.loads((tuned / "tuning.json").read_bytes())
    run = Path(found["best"]["run"])
    verdict = json.loads((run / "verdict.json").read_bytes())
    assert verdict["decision"] == "GO"
    checkpoint = json.loads((run / "checkpoint.json").read_bytes())
    assert checkpoint["scheme"] in ("MIXED_PRECISION", "NVFP4", "FP8")
    rules = yaml.safe_load((tuned / "recipe.yaml").read_text())["rules"]
    run_rules = yaml.safe_load((run / "recipe.yaml").read_text())["rules"]
    assert rules == run_rules


def test_its_recipe_is_typed_as_any_other(tuned: Path, cli: Cli, quick_suite: Path) -> None:
    typed = ("e2e", "--model", "canary", "--recipe", tuned / "recipe.yaml", "--plan")
    done = cli(*typed, "--suite", quick_suite, *ENGINE)
    assert done.code == 0, done.err


def test_typed_again_it_takes_what_is_there(tuned: Path, cli: Cli, quick_suite: Path) -> None:
    done = cli(*typed_for(quick_suite, tuned), "--bits", 6, "--suite", quick_suite)
    assert done.code == 0
    assert "sensitivities were measured before" in done.err
    assert "the frontier was measured before" in done.err
    assert "candidate: done before" in done.err


def test_the_smallest_recipe_that_passes_is_found(tuned: Path, cli: Cli, quick_suite: Path) -> None:
    done = cli(*typed_for(quick_suite, tuned), "--margin", quick_suite)
    assert done.code == 0, done.err
    found = json.loads((tuned / "tuning.json").read_bytes())
    assert found["best"]["decision"] == "GO"
    smaller = [one for one in found["attempts"] if one["bits"] < found["chosen"]["bits"]]
    assert all(one["decision"] != "GO" for one in smaller)
    assert "sensitivities were measured before" in done.err
