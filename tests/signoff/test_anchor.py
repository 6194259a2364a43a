"""A run that was signed off may become the one with which a cell's nights are compared."""

from pathlib import Path

from harness.nights import anchor_of
from tests.signoff.conftest import Run
from tests.typed import typed


def test_a_signed_off_run_becomes_the_anchor_of_a_cell(made: Run, tmp_path: Path) -> None:
    ledger = tmp_path / "nights"
    words = ("--out", tmp_path / "bundle", "--ledger", ledger, "--cell", "small")
    done = typed("signoff", made.path, *words)
    assert done.code == 0, done.err
    assert anchor_of("small", ledger) is not None


def test_a_run_that_is_refused_becomes_no_anchor(run: Run, tmp_path: Path) -> None:
    (run.checkpoint / "extra.bin").write_text("x")
    ledger = tmp_path / "nights"
    words = ("--out", tmp_path / "bundle", "--ledger", ledger, "--cell", "small")
    assert typed("signoff", run.path, *words).code == 2
    assert anchor_of("small", ledger) is None


def test_a_ledger_without_a_cell_is_refused_before_anything_is_written(
    made: Run, tmp_path: Path
) -> None:
    done = typed("signoff", made.path, "--out", tmp_path / "bundle", "--ledger", tmp_path)
    assert done.code == 2
    assert "--ledger and --cell belong together" in done.line()
    assert not (tmp_path / "bundle").exists()
