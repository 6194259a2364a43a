"""Nightlies that are disturbed lose nothing, and what is found of them is what is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.kept import kept_command
from scripts.nightly_faults.disk import PAGE, used_by
from scripts.nightly_faults.processes import MARK, kill, kind_of, left_after, marked
from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]
SERVER = ("python", "-I", "-S", "/x/served.py", "serve", "1234", "0110")


@pytest.fixture(scope="module")
@slow("nightlies of several processes each, which are killed and started again")
def disturbed() -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.nightly_faults", "--kills", "3", "--others", "1"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_disturbed_nightlies_lose_nothing(disturbed: subprocess.CompletedProcess[str]) -> None:
    assert disturbed.returncode == 0, disturbed.stdout + disturbed.stderr
    assert "wrong: nothing" in disturbed.stdout


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (kept_command(SERVER), "keeper"),
        (SERVER, "server"),
        ((*SERVER[:4], "ask", "1234", "300", "answers"), "evaluator"),
        (("python", "-m", "harness", "e2e", "--run-dir=/x"), "cell"),
        (("/bin/sleep", "600"), ""),
    ],
)
def test_a_process_is_told_by_its_command(command: list[str], kind: str) -> None:
    assert kind_of(" ".join(command)) == kind


def test_what_is_left_of_a_nightly_is_found_by_its_mark() -> None:
    token = os.urandom(8).hex()
    with subprocess.Popen(["/bin/sleep", "600"], env={MARK: token}) as process:
        assert left_after(token, 0.0) == {process.pid: "/bin/sleep 600 "}
        assert kill(process.pid)
    assert marked(token) == {}


def test_a_file_takes_whole_pages_of_a_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(bytes(PAGE + 1))
    assert used_by(tmp_path) == 3 * PAGE
