"""`harness gate`: a checkpoint that was made elsewhere, through the command line."""

import json
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from harness import shipped
from tests.cli.conftest import Cli
from tests.cli.test_main_job import delete_input_scales

CANARY = shipped.canary() / "model"


@pytest.fixture(scope="module")
def checkpoint(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as another tool would leave it: without harness's own manifest."""
    out = tmp_path_factory.mktemp("made") / "nvfp4"
    arguments = ("--model", "canary", "--qformat", "nvfp4", "--calib-size", "64", "--out", out)
    assert cli("quantize", *arguments).code == 0
    folder = out.parent / "foreign"
    shutil.copytree(out / "checkpoint", folder, ignore=shutil.ignore_patterns("harness.json"))
    return folder


@pytest.fixture(scope="module")
def gated(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("gated") / "run"
    done = cli(*gate(checkpoint, "canary", quick_suite), "--run-dir", run)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    assert re.search(r"Beside the baseline: \d\.\d times smaller, .*answers", done.out)
    return run


def gate(checkpoint: Path, baseline: object, suite: Path) -> tuple[object, ...]:
    options = ("--engine", "reference", "--numerics", "declared", "--suite", suite)
    return ("gate", checkpoint, "--baseline", baseline, *options)


def test_a_good_checkpoint_gets_go_and_every_record(gated: Path) -> None:
    names = ("recipe.yaml", "integrity.json", "deployment.json", "scorecard.json", "verdict.json")
    assert [name for name in names if not (gated / name).is_file()] == []
    assert (gated / "baseline" / "scorecard.json").is_file()
    assert not (gated / "checkpoint").exists()


def test_status_and_report_know_a_gate_run(cli: Cli, gated: Path) -> None:
    status = cli("status", gated, "--json")
    stages = [stage["stage"] for stage in status.json["stages"] if stage["finished"]]
    assert stages == ["verify", "score candidate", "score baseline", "judge"]
    assert cli("report", gated).code == 0


def test_the_scores_of_a_run_are_a_baseline(
    cli: Cli, checkpoint: Path, gated: Path, quick_suite: Path, tmp_path: Path
) -> None:
    done = cli(*gate(checkpoint, gated, quick_suite), "--run-dir", tmp_path / "again")
    assert done.code == 0, done.err


def test_a_checkpoint_as_large_as_its_baseline_is_no_go_before_anything_is_served(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    """The unquantized weights were left beside the quantized ones, where no index names them."""
    folder = tmp_path / "as_large"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").rename(folder / "model-00001.safetensors")
    names = load_file(folder / "model-00001.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    shutil.copy(CANARY / "model.safetensors", folder / "model-00002.safetensors")
    run = tmp_path / "run"
    done = cli(*gate(folder, "canary", quick_suite), "--run-dir", run, "--json")
    assert done.code == 4
    assert done.json["reason_codes"] == ["size-not-reduced"]
    assert "where the declared formats promise" in done.json["verdict"]["summary"]
    assert not (run / "scorecard.json").exists()


def test_unquantized_weights_behind_a_declaration_are_no_go_for_their_size_too(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "declared"
    shutil.copytree(checkpoint, folder)
    shutil.copy(CANARY / "model.safetensors", folder / "model.safetensors")
    arguments = gate(folder, "canary", quick_suite)
    done = cli(*arguments, "--run-dir", tmp_path / "run", "--json")
    assert done.code == 4
    assert done.json["reason_codes"] == ["integrity-failed", "size-not-reduced"]


def test_missing_scales_are_no_go_before_anything_is_served(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "faulty"
    shutil.copytree(checkpoint, folder)
    assert delete_input_scales(folder) == 192
    done = cli(*gate(folder, "canary", quick_suite), "--run-dir", tmp_path / "run", "--json")
    assert done.code == 4
    assert done.json["decision"] == "NO-GO"
    assert not (tmp_path / "run" / "deployment.json").exists()


def test_an_unquantized_model_is_no_candidate(cli: Cli, quick_suite: Path, tmp_path: Path) -> None:
    done = cli(*gate(CANARY, "canary", quick_suite), "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert "declares no quantization" in done.err
    assert not (tmp_path / "run").exists()


def test_a_candidates_scores_are_no_baseline(
    cli: Cli, checkpoint: Path, gated: Path, quick_suite: Path, tmp_path: Path
) -> None:
    arm = tmp_path / "arm"
    shutil.copytree(gated, arm, ignore=shutil.ignore_patterns("baseline"))
    done = cli(*gate(checkpoint, arm, quick_suite), "--run-dir", tmp_path / "run")
    assert done.code == 2
    assert "holds the scores of a candidate" in done.err


def test_a_planned_gate_says_what_it_can_decide_and_serves_nothing(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = cli(*gate(checkpoint, "canary", quick_suite), "--run-dir", run, "--plan", "--json")
    assert done.code == 0, done.err
    assert done.json["scheme"] == "NVFP4"
    assert [task["task"] for task in done.json["tasks"]]
    assert 0 < done.json["joint_probability_of_go"] <= 1
    assert done.json["arms"]
    assert not run.exists()


def test_another_chat_template_is_told_before_anything_is_served(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other_template"
    shutil.copytree(checkpoint, folder)
    other = "{% for message in messages %}[{{ message.role }}] {{ message.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(other, encoding="utf-8")
    chats = tmp_path / "chats.yaml"
    text = quick_suite.read_text(encoding="utf-8")
    chats.write_text(text.replace("apply_chat_template: false", "apply_chat_template: true"))
    run = tmp_path / "run"
    done = cli(*gate(folder, "canary", chats), "--run-dir", run)
    assert done.code == 2
    assert "differ in what their templates make of a chat" in done.err
    assert not run.exists()


def test_a_damaged_scale_that_no_score_shows_is_no_go(
    cli: Cli, checkpoint: Path, quick_suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "one_scale"
    shutil.copytree(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    name = min(name for name in tensors if name.endswith("experts.3.down_proj.weight_scale"))
    tensors[name] = (tensors[name].float() / 2).to(tensors[name].dtype)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    done = cli(*gate(folder, "canary", quick_suite), "--run-dir", tmp_path / "run")
    assert done.code == 4, done.err
    assert "weights-near-baseline" in done.out
