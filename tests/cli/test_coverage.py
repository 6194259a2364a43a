"""A calibration that reaches hardly any expert is never a GO, however the scores look."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.tiers import slow
from tests.typed import Done


@pytest.fixture
@slow("a whole run, whose calibration is 96 tokens long")
def ran(cli: Cli, quick: tuple[str, ...], tmp_path: Path) -> Done:
    data = tmp_path / "one.jsonl"
    data.write_text(json.dumps({"input_ids": [65] * 96}) + "\n", encoding="utf-8")
    run_dir = tmp_path / "run"
    arguments = ("--qformat", "nvfp4", "--calib-data", data, "--run-dir", run_dir, "--json")
    return cli(*quick, *arguments)


def test_one_token_over_and_over_is_no_calibration(ran: Done, tmp_path: Path) -> None:
    done, run_dir = ran, tmp_path / "run"
    assert done.code in {4, 5}, done.err
    assert "low-coverage" in done.json["reason_codes"]
    assert "projections of experts saw no token" in done.err
    assert "projections of experts saw no token" in (run_dir / "report.md").read_text()
