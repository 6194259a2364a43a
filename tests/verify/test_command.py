"""`harness verify` as it is typed: exit codes, the table, JSON and JUnit."""

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from harness.cli import app
from harness.verify import BASELINE_CHECKS, CHECKS, ENGINE_CHECKS, SOURCE_CHECKS
from harness.verify.incidents import INCIDENTS
from tests.tiers import slow

Make = Callable[..., Any]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["--quiet", "verify", *map(str, arguments)])


def delete_a_scale(tensors: dict[str, Any]) -> None:
    del tensors["model.language_model.layers.1.mlp.experts.2.up_proj.input_scale"]


def test_a_good_checkpoint_ends_with_zero_and_says_what_was_not_asked(checkpoint: Make) -> None:
    done = run(checkpoint().folder)
    assert done.exit_code == 0
    assert f"all {len(CHECKS)} checks passed" in done.stdout
    assert "not asked: --source MODEL" in done.stdout
    assert "not asked: --engine vllm==VERSION" in done.stdout


def test_an_error_ends_with_four_and_names_its_incident(checkpoint: Make) -> None:
    done = run(checkpoint().change(delete_a_scale))
    assert done.exit_code == 4
    assert "ERROR    expert-input-scales-complete" in done.stdout
    assert "seen before: https://github.com/NVIDIA/Model-Optimizer/pull/1340" in done.stdout
    assert "1 errors, 0 warnings" in done.stdout


def test_a_warning_alone_ends_with_zero(checkpoint: Make) -> None:
    folder = checkpoint().folder
    (folder / "tokenizer.json").unlink()
    done = run(folder)
    assert done.exit_code == 0
    assert "WARNING  sidecars-present" in done.stdout


def test_json_carries_every_check_with_its_incident(
    good_exports: dict[str, Path], tiny_qwen3_5_moe: Path
) -> None:
    folder = good_exports["nvfp4"]
    done = run(folder, "--source", tiny_qwen3_5_moe, "--engine", "vllm==0.32.0", "--json")
    checks = {check["id"]: check for check in json.loads(done.stdout)["checks"]}
    assert len(checks) == len(CHECKS) + len(SOURCE_CHECKS) + len(ENGINE_CHECKS)
    of_the_gate = {check.__name__.replace("_", "-") for check in BASELINE_CHECKS}
    expected = {name: link for name, link in INCIDENTS.items() if name not in of_the_gate}
    assert {name: check["incident"] for name, check in checks.items()} == expected
    assert all(check["passed"] for check in checks.values())


def test_junit_has_a_case_a_check_and_a_failure_an_error(checkpoint: Make, tmp_path: Path) -> None:
    file = tmp_path / "verify.xml"
    assert run(checkpoint().change(delete_a_scale), "--junit", file).exit_code == 4
    suite = ET.parse(file).getroot()[0]  # noqa: S314 -- written just now
    assert (suite.get("tests"), suite.get("failures")) == (str(len(CHECKS)), "1")
    case = next(c for c in suite if c.get("name") == "expert-input-scales-complete")
    assert case.find("failure") is not None
    properties = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert properties["incident"] == INCIDENTS["expert-input-scales-complete"]


@pytest.mark.parametrize("engine", ["vllm==0.30.0", "sglang==0.5.0", "vllm"])
def test_an_engine_that_is_not_known_is_refused_by_name(checkpoint: Make, engine: str) -> None:
    done = run(checkpoint().folder, "--engine", engine)
    assert done.exit_code == 2
    assert f"'{engine}' is no engine whose names are known" in done.stderr
    assert "vllm==0.25.0, vllm==0.32.0, vllm==0.33.0" in done.stderr


def test_a_source_that_is_not_there_is_a_usage_error(checkpoint: Make, tmp_path: Path) -> None:
    assert run(checkpoint().folder, "--source", tmp_path / "nowhere" / "at" / "all").exit_code == 2
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "x"}')
    done = run(checkpoint_folder(checkpoint), "--source", broken)
    assert done.exit_code == 2
    assert "is no model to compare with" in done.stderr


def checkpoint_folder(checkpoint: Make) -> Path:
    made: Path = checkpoint("FP8").folder
    return made


def test_a_refusal_replaces_the_findings_of_an_earlier_run(
    checkpoint: Make, tmp_path: Path
) -> None:
    file = tmp_path / "junit.xml"
    folder = checkpoint().folder
    assert run(folder, "--junit", file).exit_code == 0
    (folder / "config.json").unlink()
    assert run(folder, "--junit", file).exit_code == 2
    (case,) = ET.parse(file).getroot().iter("testcase")  # noqa: S314 - written just now
    assert case.find("error") is not None


def spoil(tensors: dict[str, Any]) -> None:
    """Plant several faults of most kinds."""
    for name in [n for n in tensors if ".experts.2." in n or n.endswith("z.weight_scale")]:
        del tensors[name]
    for name in [n for n in tensors if ".experts.0." in n]:
        tensors[name.replace(".0.", ".9.")] = tensors[name].clone()
    for name in [n for n in tensors if n.endswith("q_proj.weight_scale_2")]:
        tensors[name] = tensors[name] * -2
    for name in [n for n in tensors if "layers.1" in n and n.endswith("input_scale")]:
        tensors[name.replace("input_scale", "weight_quantizer._amax")] = tensors.pop(name)


@pytest.fixture
@slow("starts Python three times, which imports torch each time")
def reports(checkpoint: Make, tmp_path: Path) -> list[subprocess.CompletedProcess[bytes]]:
    """One checkpoint of many faults, as each of three processes reports it."""
    good = checkpoint(kv_algo="FP8")
    source = Path(shutil.copytree(good.folder, tmp_path / "source"))
    folder = good.change(spoil)
    for place, number in ((source, 1), (folder, 2)):
        config = json.loads((place / "config.json").read_text())
        config |= {f"setting_{letter}": number for letter in "abcdefgh"}
        (place / "config.json").write_text(json.dumps(config))
        added = {str(n): {"content": f"<{n * number}>"} for n in range(70, 78)}
        settings = {"added_tokens_decoder": added, "eos_token": f"<{number}>"}
        (place / "tokenizer_config.json").write_text(json.dumps(settings))
    command = ["verify", str(folder), "--source", str(source), "--engine", "vllm==0.32.0", "--json"]
    return [
        subprocess.run(
            [sys.executable, "-m", "harness", *command],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=False,
        )
        for seed in ("1", "2", "3")
    ]


def test_a_report_is_the_same_whatever_pythons_hashes_are(
    reports: list[subprocess.CompletedProcess[bytes]],
) -> None:
    assert [done.returncode for done in reports] == [4, 4, 4]
    assert len(json.loads(reports[0].stdout)["checks"]) > 40
    assert len({done.stdout for done in reports}) == 1
