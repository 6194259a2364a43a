"""One run of a bisect: the command that was typed, at one place, and what it says.

The command is a process of its own, which ends with the bisect, however that ends. Its run
directory stays, and a run that was cut off is continued where it was. Where one check is looked at,
the process is ended as soon as the check's result is written down.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.bisecting.axes import Axis, Kind
from harness.bisecting.commits import check_out, holds_harness
from harness.bisecting.engines import environment_of
from harness.bisecting.search import Outcome, Place
from harness.errors import EngineError, ExitCode, UnreadableError, UsageError
from harness.kept import run_kept
from harness.reading import read_json_object
from harness.stages import SMOKE, SMOKE_DECLARED, VERIFY

TREE, CHECKPOINT = "{tree}", "{checkpoint}"
"""What stands in a command for the folder of a commit, and for that of a checkpoint."""
_INTO = {"e2e": "--run-dir", "gate": "--run-dir", "quantize": "--out"}
_OF_CHECKS = (VERIFY.file, SMOKE.file, SMOKE_DECLARED.file)
_BY_CODE = {ExitCode.GO: Outcome.GOOD, ExitCode.NO_GO: Outcome.BAD}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a bisect is about."""

    axes: tuple[Axis, ...]
    command: tuple[str, ...]
    """As typed after `harness`, such as `e2e --model canary --qformat nvfp4`."""
    check: str = ""
    """Name of a check of verification or of the smoke run; empty: the verdict decides."""
    repository: str = ""
    """Top folder of the commits' repository."""
    repeats: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What one run said."""

    outcome: Outcome
    said: str
    """In a few words: how it ended."""
    run_dir: str
    """Relative to the bisect's folder."""


class _CheckSaidError(Exception):
    """The check's result lies there."""


def check_question(question: Question) -> None:
    """Refuse a command in which nothing would change from point to point.

    Raises:
        UsageError: with what to type.
    """
    command = question.command
    if not command or command[0] not in _INTO:
        message = f"a bisect runs {', '.join(_INTO)}. Type one of them after --."
        raise UsageError(message)
    taken = [
        word for word in command if word.partition("=")[0] in {"--run-dir", "--out", "--run_dir"}
    ]
    if taken:
        message = f"{taken[0]} is given by the bisect, for each run another. Leave it out."
        raise UsageError(message)
    kinds = {axis.kind: axis for axis in question.axes}
    if Kind.CHECKPOINT in kinds and CHECKPOINT not in command:
        message = f"the command does not say where the checkpoint goes: type gate '{CHECKPOINT}'."
        raise UsageError(message)
    commits = kinds.get(Kind.COMMIT)
    if commits is not None and not any(TREE in word for word in command):
        _check_code(question, commits)


def _check_code(question: Question, commits: Axis) -> None:
    if not holds_harness(Path(question.repository), commits):
        message = (
            f"the commits are not of harness itself, and the command names no file of them. "
            f"Type --recipe {TREE}/my-recipe.yaml: {TREE} is the folder of each commit."
        )
        raise UsageError(message)


def run_trial(question: Question, place: Place, number: int, folder: Path) -> Observation:
    """Run the command at one place and read what it says.

    Raises:
        UsageError: a worktree cannot be made.
    """
    name = f"{name_of(question, place)}-{number}"
    run_dir = folder / "runs" / name
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    relative = str(run_dir.relative_to(folder))
    try:
        command, environment = _typed(question, place, folder)
    except EngineError as error:
        return Observation(outcome=Outcome.SKIP, said=str(error), run_dir=relative)
    words = [sys.executable, "-P", "-m", "harness", *command, _INTO[command[0]], str(run_dir)]

    def look() -> None:
        if question.check and _check_in(run_dir, question.check) is not None:
            raise _CheckSaidError

    try:
        status = run_kept(
            words,
            environment,
            folder=Path.cwd(),
            log=folder / "runs" / f"{name}.log",
            meanwhile=look,
        )
    except _CheckSaidError:
        status = 0
    outcome, said = _read(question, run_dir, status)
    return Observation(outcome=outcome, said=said, run_dir=relative)


def name_of(question: Question, place: Place) -> str:
    """Return the points of a place as a part of a folder's name."""
    points = zip(question.axes, place, strict=True)
    return "+".join(axis.points[index].name for axis, index in points)


def tree_of(folder: Path, name: str) -> Path:
    """Return the worktree of a commit."""
    return folder / "trees" / name


def _typed(question: Question, place: Place, folder: Path) -> tuple[list[str], Mapping[str, str]]:
    """Return the command at a place, and its environment."""
    command, environment = list(question.command), dict(os.environ)
    for axis, index in zip(question.axes, place, strict=True):
        point = axis.points[index]
        if axis.kind is Kind.CHECKPOINT:
            command = [word.replace(CHECKPOINT, point.value) for word in command]
        elif axis.kind is Kind.ENGINE:
            engine = environment_of(point.value, folder / "engines")
            command += ["--engine", "vllm", "--vllm", str(engine)]
        else:
            repository, tree = Path(question.repository), tree_of(folder, point.name).absolute()
            check_out(repository, point.value, tree)
            command = [word.replace(TREE, str(tree)) for word in command]
            if holds_harness(repository, axis):
                environment["PYTHONPATH"] = str(tree)
    return command, environment


def _read(question: Question, run_dir: Path, status: int) -> tuple[Outcome, str]:
    if not question.check:
        outcome = _BY_CODE.get(ExitCode(status), Outcome.SKIP) if status in set(ExitCode) else None
        return outcome or Outcome.SKIP, f"exit {status}"
    found = _check_in(run_dir, question.check)
    if found is None:
        names = ", ".join(_checks_in(run_dir)) or "none"
        return Outcome.SKIP, f"exit {status}, without the check; those that were made: {names}"
    return found


def _check_in(run_dir: Path, name: str) -> tuple[Outcome, str] | None:
    """Return what a check found; None where it was not made."""
    check = _checks_in(run_dir).get(name)
    if check is None:
        return None
    said = f"{name}: {check.get('message', '')}"
    if check.get("passed") is True:
        return Outcome.GOOD, said
    is_found = check.get("severity") == "error" or bool(check.get("num_faulty"))
    return (Outcome.BAD if is_found else Outcome.SKIP), said


def _checks_in(run_dir: Path) -> dict[str, Mapping[str, object]]:
    """Return the checks of a run by name, whichever version of harness wrote them."""
    found: dict[str, Mapping[str, object]] = {}
    for file in _OF_CHECKS:
        try:
            checks = read_json_object(run_dir / file).get("checks")
        except (UnreadableError, OSError):
            continue
        for check in checks if isinstance(checks, list) else []:
            if isinstance(check, dict):
                found[str(check.get("id"))] = check
    return found
