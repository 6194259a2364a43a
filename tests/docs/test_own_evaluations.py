"""The commands of docs/own-evaluations.md, run from top to bottom in an empty folder."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tiers import slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "own-evaluations.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """Commands, what came of them, and what the page says that they print."""

    commands: str
    code: int
    printed: str
    said: Sequence[str]


def blocks() -> list[tuple[str, Sequence[str]]]:
    """Return the commands of the page, each with the lines that stand behind it."""
    found: list[tuple[str, Sequence[str]]] = []
    for kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "sh":
            found.append((text, ()))
        else:
            found[-1] = (found[-1][0], text.splitlines())
    return found


@pytest.fixture(scope="session")
@slow("types everything on a page, a run from recipe to verdict among it")
def steps(tmp_path_factory: pytest.TempPathFactory) -> list[Step]:
    folder, tools = tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("bin")
    harness = tools / "harness"
    harness.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m harness "$@"\n')
    harness.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HARNESS_BASELINES": str(tmp_path_factory.mktemp("baselines")),
    }
    done = []
    for commands, said in blocks():
        ran = subprocess.run(
            ["bash", "-e", "-c", commands],  # noqa: S607 - as a reader's shell
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        done.append(Step(commands, ran.returncode, ran.stdout, said))
    return done


def test_every_command_does_its_work(steps: list[Step]) -> None:
    assert len(steps) > 5
    assert [(step.commands, step.printed) for step in steps if step.code] == []


def test_every_command_prints_what_the_page_says(steps: list[Step]) -> None:
    missing = []
    for step in steps:
        printed = " ".join(step.printed.replace("\n#", "\n").replace("\n    #", "\n").split())
        missing += [line for line in step.said if " ".join(line.split()) not in printed]
    assert missing == []


def test_no_baseline_is_measured_twice(steps: list[Step]) -> None:
    measured = [step.commands for step in steps if "score: baseline" in step.printed]
    assert len(measured) == 1
    assert measured[0].startswith("harness suite new")
