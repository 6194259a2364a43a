"""Each hostile checkpoint ends `harness verify` with one line (2) or a finding (4)."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from tests.fuzz.corpus import CORPUS
from tests.verify.conftest import Checkpoint


@pytest.mark.usefixtures("short_limits")
@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_checkpoint_is_refused_in_a_line_or_a_finding(tmp_path: Path, name: str) -> None:
    folder = Checkpoint(tmp_path / "checkpoint", "NVFP4").folder
    CORPUS[name](folder)
    done = CliRunner().invoke(app, ["--quiet", "verify", str(folder), "--engine", "vllm==0.32.0"])
    assert done.exit_code in {2, 4}, done.output
    assert isinstance(done.exception, SystemExit)
    if done.exit_code == 2:
        assert len(done.stderr.strip().splitlines()) == 1
