"""Nothing that lies in the current folder is run because it lies there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.surroundings import absolute_entries

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("torch", "typer", "yaml", "json", "pydantic", "numpy", "sitecustomize", "psutil")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder as somebody else may have filled it."""
    for name in MODULES:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was run')\n")
    return tmp_path


@pytest.mark.parametrize("start", [("-m", "harness"), ("-c", "from harness.cli import app; app()")])
def test_no_module_is_taken_from_the_current_folder(hostile: Path, start: tuple[str, ...]) -> None:
    safe = () if start[0] == "-m" else ("-P",)
    done = subprocess.run(
        [sys.executable, *safe, *start, "verify", str(hostile)],
        cwd=hostile,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "was run" not in done.stderr


def test_harness_in_the_current_folder_is_found_after_everything_else(tmp_path: Path) -> None:
    (tmp_path / "harness").symlink_to(ROOT / "harness")
    (tmp_path / "typer.py").write_text("raise SystemExit('typer was run')\n")
    environment = {n: v for n, v in os.environ.items() if n != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--version"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_processes_that_are_started_later_are_safe_too(hostile: Path) -> None:
    script = (
        "import os, subprocess, sys\n"
        "from harness.surroundings import leave_current_folder\n"
        "leave_current_folder()\n"
        "print(os.environ['PATH'])\n"
        "sys.stdout.flush()\n"
        "subprocess.run([sys.executable, '-c', 'import json; print(json.__file__)'], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=hostile,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": ":.:/usr/bin:bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    path, module = done.stdout.splitlines()
    assert path == "/usr/bin:/bin"
    assert not module.startswith(str(hostile))


def test_entries_that_depend_on_the_current_folder_are_left_out() -> None:
    assert absolute_entries("") == ""
    assert absolute_entries(":/a::.:..:b/c:/d/:./e") == "/a:/d/"
