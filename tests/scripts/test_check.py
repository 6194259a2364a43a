"""scripts/check says how it ended, also when it is ended from outside."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[2] / "scripts" / "check"


def made(folder: Path, tests: str) -> Path:
    """Return a copy of the script among programs of which only the tests do anything."""
    (folder / "scripts").mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    script = Path(shutil.copy(CHECK, folder / "scripts" / "check"))
    nothing = [folder / "scripts" / name for name in ("setup", "setup-vllm")]
    nothing += [folder / ".venv" / "bin" / name for name in ("ruff", "mypy", "lint-imports")]
    for program, does in [*((one, "exit 0") for one in nothing), (python_of(folder), tests)]:
        program.write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        program.chmod(0o755)
    return script


def python_of(folder: Path) -> Path:
    return folder / ".venv" / "bin" / "python"


@pytest.mark.parametrize(("code", "ending"), [(0, "passed"), (3, "failed (3)")])
def test_a_check_ends_as_its_tests_do(tmp_path: Path, code: int, ending: str) -> None:
    script = made(tmp_path, f"exit {code}")
    done = subprocess.run([script], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert f"quick tier {ending} in" in done.stdout


def test_a_check_that_is_ended_never_says_that_it_passed(tmp_path: Path) -> None:
    script = made(tmp_path, "echo tests have begun; exec sleep 600")
    with subprocess.Popen([script], stdout=subprocess.PIPE, text=True) as check:
        assert check.stdout is not None
        assert check.stdout.readline() == "tests have begun\n"
        check.send_signal(signal.SIGTERM)
        said = check.stdout.read()  # to its end: the tests, which write there too, are gone
    assert check.returncode == 128 + signal.SIGTERM
    assert "quick tier failed (143) in" in said
