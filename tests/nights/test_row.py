"""A row says on which host a run was at work, and in which environment."""

import json
import platform
from pathlib import Path

import pytest

from harness.artifacts import Purpose
from harness.artifacts.store import RECORD_SHA256, digest_of_record
from harness.errors import RunDirectoryError
from harness.installed import ENVIRONMENT_FILE, read_surroundings
from harness.nights import CellRun, row_of_run
from tests.nights.runs import judged_run, night_job

RUN = CellRun(cell="a/b", night="2031-01-01", attempt=1, purpose=Purpose.REGULAR, exit_code=0)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    values = {"add": [1.0] * 300}
    return judged_run(night_job(), tmp_path / "run", values, baseline=values)


def rewrite(run_dir: Path, **changes: object) -> None:
    """Write what was seen first as another version of harness, or host, would have."""
    path = run_dir / ENVIRONMENT_FILE
    values = json.loads(path.read_text())
    del values[RECORD_SHA256]
    for name, value in changes.items():
        if value is None:
            del values["seen"][0][name]
        else:
            values["seen"][0][name] = value
    path.write_text(json.dumps({RECORD_SHA256: digest_of_record(values), **values}))


def test_a_row_has_the_digest_of_the_environment(run_dir: Path) -> None:
    (seen,) = read_surroundings(run_dir)
    assert row_of_run(run_dir, RUN).digests["environment"] == seen.digest


def test_the_host_is_the_one_that_ran_it_and_not_the_one_that_reads_it(run_dir: Path) -> None:
    rewrite(run_dir, host="node7")
    assert row_of_run(run_dir, RUN).host == "node7"


def test_the_digest_of_an_environment_is_the_same_on_each_host(run_dir: Path) -> None:
    before = row_of_run(run_dir, RUN).digests
    rewrite(run_dir, host="node7", platform="Linux-1")
    assert row_of_run(run_dir, RUN).digests == before


def test_a_run_from_before_hosts_were_recorded_still_has_its_row(run_dir: Path) -> None:
    rewrite(run_dir, host=None)
    row = row_of_run(run_dir, RUN)
    assert (row.host, len(row.digests["environment"])) == (platform.node(), 64)


def test_a_run_without_a_record_of_its_environment_says_none(run_dir: Path) -> None:
    (run_dir / ENVIRONMENT_FILE).unlink()
    assert "environment" not in row_of_run(run_dir, RUN).digests


def test_an_environment_that_was_edited_is_not_believed(run_dir: Path) -> None:
    path = run_dir / ENVIRONMENT_FILE
    path.write_text(path.read_text().replace('"host": "', '"host": "x'))
    with pytest.raises(RunDirectoryError, match="was changed"):
        read_surroundings(run_dir)
    assert row_of_run(run_dir, RUN).reason_codes == ("evidence-changed",)
