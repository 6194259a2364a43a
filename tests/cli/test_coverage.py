"""A calibration that reaches hardly any expert is never a GO, however the scores look."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_one_token_over_and_over_is_no_calibration(
    cli: Callable[..., Any], quick: tuple[str, ...], tmp_path: Path
) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text(json.dumps({"input_ids": [65] * 96}) + "\n", encoding="utf-8")
    run_dir = tmp_path / "run"
    arguments = ("--qformat", "nvfp4", "--calib-data", data, "--run-dir", run_dir, "--json")
    done = cli(*quick, *arguments)
    assert done.code in {4, 5}, done.err
    assert "low-coverage" in done.json["reason_codes"]
    assert "projections of experts saw fewer than 8 tokens" in done.err
    assert "projections of experts saw fewer than 8 tokens" in (run_dir / "report.md").read_text()
