"""`harness report` of a folder of nightlies."""

import json
from pathlib import Path

from harness.nights import open_ledger
from tests.report.nights import night_row
from tests.typed import typed


def test_report_writes_the_trend_page_of_a_ledger(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    for night in range(3):
        ledger.append(night_row("a", night))
    done = typed("report", tmp_path, "--json")
    assert done.code == 0
    assert json.loads(done.out) == {"files": [str(tmp_path / "trend.html")]}
    assert "ALL GO" in (tmp_path / "trend.html").read_text(encoding="utf-8")


def test_an_edited_ledger_gives_no_page(tmp_path: Path) -> None:
    open_ledger(tmp_path).append(night_row("a"))
    file = next(tmp_path.glob("ledger*.jsonl"))
    file.write_text(file.read_text(encoding="utf-8").replace("GO", "NO"), encoding="utf-8")
    assert typed("report", tmp_path).code == 2
    assert not (tmp_path / "trend.html").exists()
