"""Kept baselines: made by hand where only files matter, measured on the canary where they do not.

The command line runs in this process here, since nothing but its exit codes and texts is looked at.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import baselines, shipped
from harness.artifacts import BaselineInputs, Scorecard, save, write_samples
from harness.baselines import Kept
from tests.nouns import deployment, engine_spec, sample, scorecard, task_score

ENGINE = engine_spec(max_model_len=256)
VERSIONS = {"harness": "0.1.0", "torch": "2.13.0", "lm_eval": "0.4.13"}
TASK = "add"


def make_inputs(**changes: object) -> BaselineInputs:
    inputs = BaselineInputs(
        model="canary",
        model_digest="a" * 64,
        suite="tiny",
        suite_digest="b" * 64,
        engine=ENGINE,
        versions=VERSIONS,
        architecture={"hidden_size": "64"},
    )
    return dataclasses.replace(inputs, **changes)  # type: ignore[arg-type]  # the fields vary by test


def write_arm(folder: Path, values: list[float], inputs: BaselineInputs) -> Scorecard:
    """Write what scoring writes."""
    (folder / "samples").mkdir(parents=True)
    file = folder / "samples" / f"{TASK}.jsonl"
    samples = [sample(TASK, i, value) for i, value in enumerate(values)]
    write_samples(samples, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    card = scorecard(
        "baseline",
        deployment(engine=inputs.engine.name, checkpoint_digest=inputs.model_digest),
        task_score(TASK, samples, samples_sha256=digest),
        suite=inputs.suite,
        suite_digest=inputs.suite_digest,
        lm_eval_version=inputs.versions["lm_eval"],
    )
    save(card, folder / "scorecard.json")
    return card


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_BASELINES", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def inputs() -> Callable[..., BaselineInputs]:
    return make_inputs


@pytest.fixture
def keep(store: Path) -> Callable[..., Kept]:
    """Put a baseline of ten items into the store; its second run flipped two."""

    def make(**changes: object) -> Kept:
        made = make_inputs(**changes)
        with baselines.entry(made.key) as folder:
            write_arm(folder, [1.0] * 10, made)
            write_arm(folder / baselines.AGAIN, [1.0] * 8 + [0.0] * 2, made)
            baselines.finish_entry(folder, made, share=1.0)
        assert folder.parent == store
        return baselines.find_baseline(made.key)

    return make


@pytest.fixture(scope="session")
def tiny_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the canary's critical tasks with few items, a wide margin and no smoke run."""
    values: dict[str, Any] = yaml.safe_load((shipped.suites() / "canary.yaml").read_text())
    task = next(task for task in values["tasks"] if task["tier"] == "critical")
    values |= {"name": "tiny", "tasks": [task | {"items": 60, "margin": 0.2}], "smoke": None}
    values["pooled_margin"] = None
    path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
