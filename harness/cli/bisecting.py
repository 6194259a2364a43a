"""What `harness bisect` does: a question from what was typed, and the answer in words."""

from pathlib import Path
from typing import NamedTuple

from harness.artifacts import to_json
from harness.bisecting import (
    Ending,
    Found,
    Question,
    bisect,
    checkpoint_axis,
    commit_axis,
    engine_axis,
    top_of,
)
from harness.cli.console import Result
from harness.cli.differing import of_difference
from harness.errors import ExitCode, UsageError

_CODES = {Ending.FOUND: ExitCode.GO, Ending.NOT_RUN: ExitCode.STAGE_FAILED}


class Typed(NamedTuple):
    """Options that say what is bisected over."""

    commits: tuple[str | None, str | None]
    """The good and the bad one."""
    repository: Path
    paths: tuple[str, ...]
    engines: str | None
    checkpoints: str | None


def question_of(typed: Typed, words: list[str], check: str, repeats: int) -> Question:
    """Return the question; axes stand in the order in which they are turned.

    Raises:
        UsageError: nothing is named, or half of something.
    """
    axes = []
    if typed.engines is not None:
        axes.append(engine_axis(typed.engines))
    if typed.checkpoints is not None:
        axes.append(checkpoint_axis(typed.checkpoints))
    good, bad = typed.commits
    repository = ""
    if good is not None and bad is not None:
        top = top_of(typed.repository)
        repository = str(top)
        axes.append(commit_axis(top, good, bad, typed.paths))
    elif good is not None or bad is not None:
        message = "--good and --bad belong together. Type both."
        raise UsageError(message)
    if not axes:
        message = (
            "nothing is named to bisect over. Type --good and --bad, --engines or --checkpoints."
        )
        raise UsageError(message)
    return Question(
        axes=tuple(axes),
        command=tuple(words),
        check=check,
        repository=repository,
        repeats=repeats,
    )


def bisected(question: Question, out: Path) -> Result:
    """Bisect, and say what was found."""
    found = bisect(question, out)
    return Result(
        text=_of_found(found, out),
        values=to_json(found),
        exit_code=_CODES.get(found.ending, ExitCode.INCONCLUSIVE),
    )


def _of_found(found: Found, out: Path) -> str:
    lines = [found.message]
    lines += [f"  {suspect}" for suspect in found.suspects] if len(found.suspects) > 1 else []
    lines += [f"  {line}" for line in found.changed.splitlines()]
    lines += ["", f"{len(found.seen)} runs"]
    lines += [f"  {one.outcome:<5} {name}: {one.said}" for name, one in found.seen.items()]
    if found.difference is not None:
        head = f"{out / found.last_good} (A) beside {out / found.first_bad} (B)"
        return "\n".join([*lines, "", head, of_difference(found.difference)])
    return "\n".join([*lines, "", f"not compared: {found.difference_note}"])
