"""The command line, and a correct checkpoint of each format that faults are made of."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from harness import pipeline, shipped
from harness.drill import FORMATS
from harness.preflight import preflight
from harness.recipe import Request
from harness.runs import run_job
from tests.cli.conftest import baselines, cli, cli_process, environment

__all__ = ["baselines", "cli", "cli_process", "environment"]


@pytest.fixture(scope="session")
def correct(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders of small-calibration checkpoints of the canary, by format."""
    made = {}
    for form in FORMATS:
        folder = tmp_path_factory.mktemp("correct") / form.name
        request = Request(
            model="canary", qformat=form.qformat, kv_cache=form.kv_cache, calib_size=8
        )
        job = preflight(request, into=folder, scored=False)
        _, record = run_job(job, into=folder, work=pipeline.make_checkpoint)
        assert record.failure is None
        made[form.name] = folder / "checkpoint"
    return made


@pytest.fixture(scope="session")
def short_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks with few items, wide margins and no smoke run: a run in seconds."""
    values = yaml.safe_load((shipped.suites() / "drill.yaml").read_text(encoding="utf-8"))
    tasks = [task | {"items": 60, "margin": 0.2} for task in values["tasks"][:2]]
    values |= {"name": "short", "tasks": tasks, "smoke": None}
    path = tmp_path_factory.mktemp("suite") / "short.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
