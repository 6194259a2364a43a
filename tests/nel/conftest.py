"""A benchmark of one's own for NeMo Evaluator, and a suite that asks it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import shipped
from harness.errors import PrerequisiteError
from harness.nel import find_nel
from tests.tiers import slow

ITEMS = 20
BENCHMARK = """
import json
from pathlib import Path

from nemo_evaluator.environments.custom import benchmark, scorer
from nemo_evaluator.scoring import ScorerInput


def items():
    lines = Path("items.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@benchmark(name="sums", dataset=items, prompt="{prompt}", target_field="answer")
@scorer
def score(sample: ScorerInput) -> dict:
    return {"correct": sample.response.strip() == sample.target}
"""
TASK: dict[str, Any] = {
    "name": "sums",
    "tool": "nel",
    "tier": "critical",
    "metric": "reward",
    "filter": "none",
    "items": ITEMS,
    "margin": 0.2,
    "flip_rate": 0.01,
    "num_fewshot": 0,
    "chance": 0.0,
}


class Suite:
    """A folder with a suite, NeMo Evaluator's configuration, and a benchmark with its items."""

    def __init__(self, folder: Path, *, items: int = ITEMS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file, self.config = folder / "suite.yaml", folder / "nel.yaml"
        self.code = folder / "bench.py"
        self.code.write_text(BENCHMARK)
        tasks = (shipped.tasks() / "canary" / "canary_add.jsonl").read_text().splitlines()
        (folder / "items.jsonl").write_text("".join(f"{line}\n" for line in tasks[:items]))
        self.settings: dict[str, Any] = {
            "services": {
                "model": {
                    "type": "api",
                    "url": "http://127.0.0.1:9/v1",
                    "protocol": "completions",
                    "generation": {"max_tokens": 7, "stop": ["\n"]},
                }
            },
            "benchmarks": [{"name": "bench.py", "solver": {"type": "simple", "service": "model"}}],
        }
        self.values: dict[str, Any] = {
            "version": 1,
            "name": "asked-by-nel",
            "max_model_len": 256,
            "apply_chat_template": False,
            "seed": 1,
            "batch_size": 8,
            "confidence": 0.95,
            "max_truncated": 0.05,
            "nel": "nel.yaml",
            "tasks": [TASK | {"items": items}],
        }
        self.write()

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.values))
        self.config.write_text(yaml.safe_dump(self.settings))

    @property
    def benchmark(self) -> dict[str, Any]:
        found: dict[str, Any] = self.settings["benchmarks"][0]
        return found

    @property
    def service(self) -> dict[str, Any]:
        found: dict[str, Any] = self.settings["services"]["model"]
        return found

    def task(self, **changes: object) -> dict[str, Any]:
        """Change what the suite says of its task."""
        found: dict[str, Any] = self.values["tasks"][0]
        found.update(changes)
        return found


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(tmp_path / "suite")


@pytest.fixture(scope="session")
@slow("NeMo Evaluator takes seconds to import")
def nel() -> Mapping[str, str]:
    """The environment in which the real NeMo Evaluator is found."""
    try:
        return {"HARNESS_NEL": str(find_nel(None))}
    except PrerequisiteError as error:
        pytest.skip(str(error))


FAKE = """
import json, os, sys, time
from pathlib import Path

how = json.loads(Path(os.environ["FAKE_HOW"]).read_text())
order = json.loads(Path(sys.argv[-1]).read_text())
print("the key is", os.environ.get("HARNESS_NEL_KEY"))
Path(order["result"]).with_name("environment.json").write_text(json.dumps(dict(os.environ)))
time.sleep(how.get("seconds", 0))
if "dies" in how:
    sys.exit(how["dies"])
Path(order["result"]).write_text(json.dumps(how["result"]))
"""


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """A file with the program that `make_environment` lets stand in for NeMo Evaluator's Python."""
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return path


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "nel" not in request.fixturenames:
        monkeypatch.delenv("HARNESS_NEL", raising=False)
    assert os.environ.get("HARNESS_NEL_KEY") is None
