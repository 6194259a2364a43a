"""Cores that a process may keep busy: those that it is bound to, as far as they are granted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import cores


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("400000 100000\n", 4),
        ("250000 100000\n", 3),
        ("10000 100000\n", 1),
        ("6400000 100000\n", 16),  # more than it is bound to
        ("max 100000\n", 16),
        ("", 16),
        ("5 0", 16),
        (None, 16),
    ],
)
def test_a_group_s_grant_bounds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: int
) -> None:
    monkeypatch.setattr(cores, "_BOUND", 16)
    monkeypatch.setattr(os, "cpu_count", lambda: 192)
    monkeypatch.setattr(cores, "_QUOTA", tmp_path / "cpu.max")
    if text is not None:
        (tmp_path / "cpu.max").write_text(text, encoding="ascii")
    assert cores.num_cores() == expected


@pytest.mark.parametrize("when", ["before", "after"])
def test_cores_are_those_that_the_process_was_bound_to_when_it_began(when: str) -> None:
    """OpenMP binds the thread that loads it to one of them later on."""
    bind = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    count = "from harness.cores import num_cores"
    lines = ["import os", *([bind, count] if when == "before" else [count, bind])]
    program = "; ".join([*lines, "print(num_cores())"])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    expected = 1 if when == "before" else cores.num_cores()
    assert int(done.stdout) == expected
