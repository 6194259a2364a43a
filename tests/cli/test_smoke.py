"""A fault that an engine computes in silence, through the command line: smoke stops the run."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.cli.conftest import Cli
from tests.tiers import slow
from tests.typed import Done


@pytest.fixture(scope="module")
def made(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "nvfp4"
    options = ("--model", "canary", "--qformat", "nvfp4", "--calib-size", "64", "--out", out)
    assert cli("quantize", *options).code == 0
    return out / "checkpoint"


@pytest.fixture(scope="module")
def smoked_suite(quick_suite: Path) -> Path:
    values = yaml.safe_load(quick_suite.read_text(encoding="utf-8"))
    path = quick_suite.with_name("smoked.yaml")
    path.write_text(yaml.safe_dump(values | {"name": "smoked", "smoke": "canary"}))
    return path


@pytest.fixture(scope="module")
@slow("both arms read passages and answer prompts")
def spoiled(
    cli: Cli, made: Path, smoked_suite: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Done, Path]:
    """Every expert has its gate's global scale doubled, and nobody verifies."""
    folder = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(made, folder / "checkpoint")
    for shard in (folder / "checkpoint").glob("*.safetensors"):
        tensors = load_file(shard)
        for name in tensors:
            if ".mlp.experts." in name and name.endswith("gate_proj.weight_scale_2"):
                tensors[name] = tensors[name] * 2
        save_file(tensors, shard, metadata={"format": "pt"})
    options = ("--engine", "reference", "--numerics", "declared", "--suite", smoked_suite)
    gate = ("gate", folder / "checkpoint", "--baseline", "canary", *options, "--skip-verify")
    return cli(*gate, "--run-dir", folder / "run"), folder / "run"


def summary(run: Path) -> Mapping[str, Any]:
    values: Mapping[str, Any] = json.loads((run / "verdict.json").read_text())
    return values


def test_a_fault_that_the_engine_computes_in_silence_is_no_go_before_scoring(
    spoiled: tuple[Done, Path],
) -> None:
    done, run = spoiled
    assert done.code == 4, done.err
    assert (summary(run)["decision"], summary(run)["reason_codes"]) == ("NO-GO", ["smoke-failed"])
    assert not (run / "scorecard.json").exists()
    assert not (run / "samples").exists()
    assert "score" not in {path.name for path in (run / "baseline").glob("*")}


def test_the_reports_show_both_arms_side_by_side(spoiled: tuple[Done, Path]) -> None:
    done, run = spoiled
    assert "smoke-known-answers" in done.out
    assert "candidate" in done.out
    html = (run / "report.html").read_text()
    assert "Before scoring: smoke canary" in html
    assert "<h4>Baseline</h4>" in html
    report = json.loads((run / "smoke.json").read_text())
    lost = next(side for side in report["answers"] if side["lost"])
    assert lost["expect"][0] in lost["baseline"]
    assert lost["baseline"].strip() in html
    assert "| prompt | expected | baseline | candidate |" in (run / "report.md").read_text()


def test_junit_has_a_case_for_every_smoke_check(spoiled: tuple[Done, Path]) -> None:
    _, run = spoiled
    root = ET.parse(run / "junit.xml").getroot()  # noqa: S314 - written by the run itself
    (suite,) = [one for one in root if one.get("name") == "harness.smoke"]
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert "smoke-kld [declared]" in failed
    assert int(suite.get("tests", "0")) == 17


def test_status_names_the_smoke_stage(cli: Cli, spoiled: tuple[Done, Path]) -> None:
    stages = {one["stage"]: one for one in cli("status", spoiled[1], "--json").json["stages"]}
    assert stages["smoke"]["finished"]
    assert not stages["score candidate"]["finished"]
    assert "smoke declared" not in stages


def test_the_run_typed_again_says_the_same_at_once(
    cli: Cli, spoiled: tuple[Done, Path], smoked_suite: Path
) -> None:
    _, run = spoiled
    options = ("--engine", "reference", "--numerics", "declared", "--suite", smoked_suite)
    checkpoint = run.parent / "checkpoint"
    gate = ("gate", checkpoint, "--baseline", "canary", *options, "--skip-verify")
    done = cli(*gate, "--run-dir", run)
    assert done.code == 4
    assert "smoke: done before" in done.err
    assert "serve:" not in done.err.replace("serve: vllm", "")
