"""Whatever lies in a file, its reader ends in a value or in one of our errors, soon and in little.

A few hundred examples, always the same; `HARNESS_FUZZ=full` makes 20,000 new ones. What is asked of
each is said in `limited_run`; `python -m scripts.fuzz` prints the figures.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.tiers import slow

QUICK, FULL = 300, 20_000


@pytest.fixture
@slow("some hundred examples for each reader, in a process of their own")
def fuzzed() -> tuple[int, subprocess.CompletedProcess[str]]:
    """Return the seed, and how the process ended."""
    is_full = os.environ.get("HARNESS_FUZZ") == "full"
    number = int.from_bytes(os.urandom(4), "little") + 1 if is_full else 0
    command = [sys.executable, "-m", "tests.fuzz.limited_run", str(FULL if is_full else QUICK)]
    done = subprocess.run([*command, str(number)], capture_output=True, text=True, check=False)
    return number, done


def test_no_reader_ends_in_anything_but_a_value_or_an_error_of_ours(
    fuzzed: tuple[int, subprocess.CompletedProcess[str]],
) -> None:
    number, done = fuzzed
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"seed {number}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    problems = [found["problem"] for found in map(json.loads, lines) if found["problem"]]
    assert not problems, f"seed {number}: {problems[0][-6000:]}"
