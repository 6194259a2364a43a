"""The whole way on real vLLM servers: NeMo Evaluator asks both arms, and the gate judges."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.nel.conftest import Suite
from tests.tiers import slow
from tests.typed import Done, typed

ITEMS = 200


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """One task of NeMo Evaluator's, one of lm-eval's, and no smoke run that would come before."""
    suite = Suite(tmp_path_factory.mktemp("suite"), items=ITEMS)
    suite.task(margin=0.04)
    ours: dict[str, object] = {
        "name": "canary_reverse",
        "metric": "exact_match",
        "filter": "remove_whitespace",
    }
    ours |= {"tool": "lm-eval", "items": 100, "margin": 0.08}
    suite.values["tasks"].append(suite.task() | ours)
    suite.write()
    return suite


@pytest.fixture(scope="module")
def environment(
    nel: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    return {**nel, "HARNESS_BASELINES": str(tmp_path_factory.mktemp("baselines"))}


@pytest.fixture(scope="module")
@slow("two real vLLM servers, each asked by NeMo Evaluator")
def run_dir(
    vllm_python: Path,
    asked: Suite,
    environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    assert vllm_python.is_file()
    path = tmp_path_factory.mktemp("runs") / "nvfp4"
    done = main_job(asked, path, environment)
    assert done.code == 0, done.err
    assert "\nGO: " in done.out
    return path


def main_job(asked: Suite, run_dir: Path, environment: Mapping[str, str]) -> Done:
    made = ("--model", "canary", "--qformat", "nvfp4", "--calib-size", "64", "--engine", "vllm")
    given = ("--suite", asked.file, "--task-code", "--run-dir", run_dir)
    return typed("e2e", *made, *given, env=environment)


def test_both_tools_tasks_are_judged_together(run_dir: Path) -> None:
    tasks = json.loads((run_dir / "verdict.json").read_text())["tasks"]
    found = [(task["task"], task["num_items"], task["decision"]) for task in tasks]
    assert found == [("sums", ITEMS, "GO"), ("canary_reverse", 100, "GO")]


def test_each_arm_was_asked_by_nemo_evaluator_itself(run_dir: Path) -> None:
    for arm in (run_dir, run_dir / "baseline"):
        (bundle,) = (arm / "nel" / "bundles" / "sums").glob("eval-*.json")
        benchmark = json.loads(bundle.read_text())["benchmark"]
        (score,) = [t for t in scores_of(arm) if t["task"] == "sums"]
        assert benchmark["scores"]["summary"]["mean"] == pytest.approx(score["value"], abs=1e-4)


def scores_of(arm: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((arm / "scorecard.json").read_text())["tasks"]
    return found


def test_the_baseline_was_asked_again_by_it(run_dir: Path) -> None:
    (score,) = [t for t in scores_of(run_dir / "baseline" / "again") if t["task"] == "sums"]
    assert score["num_items"] == ITEMS // 2


def test_typed_again_nothing_is_asked_again(
    asked: Suite, run_dir: Path, environment: Mapping[str, str]
) -> None:
    done = main_job(asked, run_dir, environment)
    assert done.code == 0
    assert "score candidate: done before" in done.err
    assert "NeMo Evaluator asks" not in done.err


@pytest.fixture(scope="module")
def ruined(
    run_dir: Path,
    asked: Suite,
    environment: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Done:
    """The same checkpoint with the experts' scales tripled, which no server complains of."""
    folder = tmp_path_factory.mktemp("ruined")
    shutil.copytree(run_dir / "checkpoint", folder / "checkpoint")
    file = folder / "checkpoint" / "model.safetensors"
    tensors = load_file(file)
    scales = [name for name in tensors if "experts" in name and name.endswith("weight_scale_2")]
    assert scales
    save_file(tensors | {n: 3 * tensors[n] for n in scales}, file, metadata={"format": "pt"})
    alone = yaml.safe_load(asked.file.read_text())
    del alone["tasks"][1]
    suite = asked.file.with_name("alone.yaml")
    suite.write_text(yaml.safe_dump(alone))
    options = ("--baseline", "canary", "--suite", suite, "--task-code", "--engine", "vllm")
    given = (*options, "--skip-verify", "--run-dir", folder / "run", "--json")
    return typed("gate", file.parent, *given, env=environment)


def test_a_ruined_candidate_is_no_go_by_nemo_evaluator_s_answers_alone(ruined: Done) -> None:
    assert ruined.code == 4, ruined.err
    (task,) = ruined.json["verdict"]["tasks"]
    assert (task["task"], task["reason"]) == ("sums", "task-inferior")
    assert task["num_lost"] > ITEMS // 2
