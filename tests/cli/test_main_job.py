"""The main job through the command line, on the canary, with a small suite."""

import json
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.rundir import WRITTEN
from tests.cli.conftest import Cli
from tests.tiers import slow

Tensors = dict[str, dict[str, torch.Tensor]]
REPORTS = ("verdict.json", "report.md", "report.html", "junit.xml")
NOUNS = (
    "recipe.yaml",
    "calibration.json",
    "calibration.safetensors",
    "checkpoint.json",
    "integrity.json",
    "scorecard.json",
    "baseline/scorecard.json",
)


@pytest.fixture(scope="module")
def run_dir(cli: Cli, quick: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "nvfp4"
    done = cli(*quick, "--qformat", "nvfp4", "--run-dir", path)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    assert "reason codes: non-inferior" in done.out
    return path


@pytest.mark.parametrize("layout", ["lm-eval", "nel"])
def test_its_scores_are_judged_alike_in_other_tools_layouts(
    cli: Cli, run_dir: Path, tmp_path: Path, layout: str
) -> None:
    verdict = json.loads((run_dir / "verdict.json").read_text())
    done = cli("report", run_dir, "--as", layout, tmp_path / "out")
    assert done.code == 0, done.err
    arms = (tmp_path / "out" / "baseline", tmp_path / "out" / "candidate")
    judged = cli("judge", *arms, "--margin", 0.5, "--json").json
    assert "tasks" in judged, judged
    lost = {task["task"]: task["num_lost"] for task in verdict["tasks"]}
    assert {task["task"]: task["num_lost"] for task in judged["tasks"]} == lost


def test_all_that_a_run_writes_is_what_fresh_removes(run_dir: Path) -> None:
    names = {entry.name for entry in run_dir.iterdir()} - {"run.lock"}
    assert {n for n in names if not any(fnmatchcase(n, pattern) for pattern in WRITTEN)} == set()


def delete_input_scales(checkpoint: Path) -> int:
    """Delete the input scale of every routed expert; return how many there were."""
    shards = list(checkpoint.glob("*.safetensors"))
    num_deleted = 0
    for shard in shards:
        tensors = load_file(shard)
        kept = {
            name: tensor
            for name, tensor in tensors.items()
            if not (".experts." in name and name.endswith(".input_scale"))
        }
        num_deleted += len(tensors) - len(kept)
        save_file(kept, shard, metadata={"format": "pt"})
    index = checkpoint / "model.safetensors.index.json"
    if index.exists():
        values = json.loads(index.read_text())
        values["weight_map"] = {
            name: file
            for name, file in values["weight_map"].items()
            if not (".experts." in name and name.endswith(".input_scale"))
        }
        index.write_text(json.dumps(values))
    return num_deleted


def test_typed_by_a_user_it_ends_go(
    cli_process: Cli, quick: tuple[str, ...], tmp_path: Path
) -> None:
    done = cli_process(*quick, "--qformat", "nvfp4", "--run-dir", tmp_path / "run")
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_run_directory_holds_every_noun_and_report(run_dir: Path) -> None:
    assert [n for n in (*NOUNS, *REPORTS) if not (run_dir / n).is_file()] == []
    assert json.loads((run_dir / "verdict.json").read_text())["decision"] == "GO"
    junit = ET.parse(run_dir / "junit.xml").getroot()  # noqa: S314 - written by the run itself
    assert junit.tag in {"testsuites", "testsuite"}
    assert "http" not in (run_dir / "report.html").read_text().split("<body", 1)[0]


def test_a_finished_run_typed_again_does_nothing_and_says_go(
    cli: Cli, quick: tuple[str, ...], run_dir: Path
) -> None:
    before = {n: (run_dir / n).stat().st_mtime_ns for n in NOUNS if n != "recipe.yaml"}
    done = cli(*quick, "--qformat", "nvfp4", "--run-dir", run_dir)
    assert done.code == 0
    assert {n: (run_dir / n).stat().st_mtime_ns for n in before} == before
    assert done.err.count("done before") >= 5


def test_changing_the_margin_judges_again_and_scores_nothing(
    cli: Cli, quick: tuple[str, ...], run_dir: Path
) -> None:
    done = cli(*quick, "--qformat", "nvfp4", "--run-dir", run_dir, "--margin", "0.19", "--json")
    assert done.code == 0
    assert {t["margin"] for t in done.json["verdict"]["tasks"]} == {0.19}
    assert "score candidate: done before" in done.err
    assert "score baseline: done before" in done.err


def test_changing_the_format_redoes_what_depends_on_it_and_keeps_the_baseline(
    cli: Cli, quick: tuple[str, ...], run_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    done = cli(*quick, "--qformat", "w4a16_nvfp4", "--run-dir", path)
    assert done.code == 0, done.err
    assert "export: starting" in done.err
    assert "score baseline: done before" in done.err


def test_verify_passes_what_was_exported(cli: Cli, run_dir: Path) -> None:
    done = cli("verify", run_dir / "checkpoint", "--json")
    assert done.code == 0
    assert all(check["passed"] or check["severity"] == "warning" for check in done.json["checks"])


def test_deleted_input_scales_are_found_and_refused(
    cli: Cli, quick: tuple[str, ...], run_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    num_deleted = delete_input_scales(path / "checkpoint")
    assert num_deleted > 0
    found = cli("verify", path / "checkpoint")
    assert found.code == 4
    assert f"{num_deleted} of {num_deleted} expert input_scale" in found.out
    suite = quick[quick.index("--suite") + 1]
    gate = ("gate", path / "checkpoint", "--baseline", "canary", "--suite", suite, "--json")
    judged = cli(*gate, "--run-dir", tmp_path / "gate")
    assert judged.code == 4
    assert judged.json["reason_codes"] == ["integrity-failed"]
    unverified = cli(*gate, "--run-dir", tmp_path / "unverified", "--skip-verify")
    assert unverified.code == 4
    assert unverified.json["reason_codes"] == ["scale-missing"]
    assert unverified.json["serve_command"] is None
    assert not (tmp_path / "unverified" / "scorecard.json").exists()


def test_a_checkpoint_that_was_damaged_in_its_run_directory_is_made_again(
    cli: Cli, quick: tuple[str, ...], run_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    assert delete_input_scales(path / "checkpoint") > 0
    again = cli(*quick, "--qformat", "nvfp4", "--run-dir", path)
    assert again.code == 0, again.err
    assert "export: starting" in again.err
    assert cli("verify", path / "checkpoint").code == 0


def test_a_run_that_skips_verification_never_ends_go(
    cli: Cli, quick: tuple[str, ...], run_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    done = cli(*quick, "--qformat", "nvfp4", "--run-dir", path, "--skip-verify", "--json")
    assert done.code == 5
    assert "verify-skipped" in done.json["reason_codes"]


def test_status_names_each_stage(cli: Cli, run_dir: Path) -> None:
    done = cli("status", run_dir, "--json")
    assert done.code == 0
    assert all(stage["finished"] for stage in done.json["stages"])
    assert done.json["ending"] == "GO"


def test_report_writes_the_reports_again(cli: Cli, run_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_dir, path)
    for name in REPORTS[1:]:
        (path / name).unlink()
    assert cli("report", path).code == 0
    for name in REPORTS[1:]:
        assert (path / name).is_file()


def test_judge_compares_two_scored_folders(cli: Cli, quick_suite: Path, run_dir: Path) -> None:
    done = cli("judge", run_dir / "baseline", run_dir, "--suite", quick_suite, "--json")
    assert done.code == 5
    assert done.json["reason_codes"] == ["verify-skipped"]


def test_the_plan_prints_everything_and_writes_nothing(
    cli: Cli, quick: tuple[str, ...], tmp_path: Path
) -> None:
    done = cli(*quick, "--qformat", "nvfp4", "--plan", cwd=tmp_path)
    assert done.code == 0, done.err
    for words in ("*.mlp.experts.*.gate_proj", "*lm_head*", "bits each", "arms: ", "margin"):
        assert words in done.out
    assert list(tmp_path.iterdir()) == []


def test_the_plan_of_a_checkpoint_alone_says_nothing_of_scoring(cli: Cli, tmp_path: Path) -> None:
    words = ("quantize", "--model", "canary", "--qformat", "nvfp4", "--calib-size", "8")
    done = cli(*words, "--out", tmp_path / "out", "--plan", "--json")
    assert done.code == 0, done.err
    assert list(done.json["stage_seconds"]) == ["calibrate", "export", "verify"]
    assert all(seconds > 0 for seconds in done.json["stage_seconds"].values())
    assert (done.json["engine"], done.json["suite"], done.json["tasks"]) == (None, None, [])
    assert not (tmp_path / "out").exists()
    assert "margin" not in cli(*words, "--out", tmp_path / "out", "--plan").out


@pytest.mark.parametrize("qformat", ["fp8", "nvfp4_experts_only"])
@pytest.mark.parametrize("kv", ["none", "fp8"])
def test_quantize_writes_a_verified_checkpoint(
    cli: Cli, tmp_path: Path, qformat: str, kv: str
) -> None:
    out = tmp_path / "out"
    arguments = ["--qformat", qformat, "--kv_cache_qformat", kv, "--calib_size", "64"]
    done = cli("quantize", "--model", "canary", *arguments, "--out", out, "--json")
    assert done.code == 0, done.err
    assert cli("verify", out / "checkpoint").code == 0
    scales = [k for p in (out / "checkpoint").glob("*.safetensors") for k in load_file(p)]
    assert any(name.endswith("k_scale") for name in scales) == (kv == "fp8")


@pytest.fixture
@slow("two calibrations, one of them expert by expert")
def either_way(cli: Cli, tmp_path: Path) -> Tensors:
    """What eager and grouped experts leave."""
    made: Tensors = {}
    for way in ("eager", "grouped"):
        arguments = ["--qformat", "nvfp4", "--calib_size", "64", "--experts", way]
        out = tmp_path / way
        done = cli("quantize", "--model", "canary", *arguments, "--out", out)
        assert done.code == 0, done.err
        shards = sorted((out / "checkpoint").glob("*.safetensors"))
        made[way] = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    return made


def test_grouped_experts_leave_the_same_weights_and_nearly_the_same_input_scales(
    either_way: Tensors,
) -> None:
    made = either_way
    assert made["grouped"].keys() == made["eager"].keys()
    for name, tensor in made["eager"].items():
        if name.endswith("input_scale"):
            assert made["grouped"][name].item() == pytest.approx(tensor.item(), rel=0.05), name
        else:
            assert made["grouped"][name].equal(tensor), name


UNSEEN = {
    "eager": """
from contextlib import nullcontext
import harness.calibrate.forward as forward
forward.experts_run = lambda model, way: nullcontext()
""",
    "grouped": """
import harness.models.experts as experts
product = experts.nn.functional.grouped_mm
def unseen(*given, **more):
    with experts.torch._C.DisableTorchFunction():
        return product(*given, **more)
experts.nn.functional.grouped_mm = unseen
""",
}
"""Experts run past the eyes of calibration."""


@pytest.mark.parametrize("way", sorted(UNSEEN))
def test_where_experts_run_unseen_the_run_is_no_go_and_names_the_cause(
    cli_process: Cli, quick: tuple[str, ...], tmp_path: Path, way: str
) -> None:
    run_dir = tmp_path / "run"
    options = ("--qformat", "nvfp4", "--experts", way, "--run-dir", run_dir, "--json")
    done = cli_process(*quick, *options, fault=UNSEEN[way])
    assert done.code == 4, done.err
    assert done.json["reason_codes"] == ["no-expert-observed"]
    assert "linear calls: 0" in done.json["verdict"]["summary"]
    assert json.loads((run_dir / "verdict.json").read_text())["decision"] == "NO-GO"
    assert not (run_dir / "checkpoint").exists()
    assert (run_dir / "report.html").is_file()
