"""Look at a suite's file as everybody else who uses it will, and say all that is wrong with it."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness import score
from harness.artifacts import Suite
from harness.errors import UsageError
from harness.gate import TaskPower, check_margins, joint_probability_of_go, plan_power
from harness.models import open_source
from harness.preflight.asked import note_asked
from harness.preflight.job import check_questions
from harness.preflight.problems import Problems
from harness.recipe import Request, suite_of
from harness.score.lengths import Lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedSuite:
    """What was found."""

    file: Path
    suite: Suite | None
    """None where the file cannot be read as one."""
    mistakes: tuple[UsageError, ...]
    lengths: tuple[Lengths, ...] = ()
    """Of prompts in tokens, where a model was named and nothing is wrong."""
    powers: tuple[TaskPower, ...] = ()
    """What each task can decide, where nothing is wrong."""
    joint_probability_of_go: float | None = None


def examine_suite(request: Request, file: Path, *, model: str | None) -> ExaminedSuite:
    """Return what is wrong with a suite, for a model where one is named.

    Args:
        request: what was typed of own tasks.
        file: of the suite.
        model: that is to be asked; None for any.
    """
    problems = Problems()
    suite = problems.attempt(lambda: suite_of(request, str(file)))
    source = problems.attempt(lambda: open_source(model)) if model else None
    if suite is not None:
        suite = check_questions(problems, suite)
        for task in suite.tasks:
            alone = dataclasses.replace(suite, tasks=(task,), pooled_margin=None)
            problems.attempt(partial(check_margins, alone))
        if source is not None:
            note_asked(problems, suite, source)
    if suite is None or problems.found:
        return ExaminedSuite(file=file, suite=suite, mistakes=tuple(problems.found))
    return ExaminedSuite(
        file=file,
        suite=suite,
        mistakes=(),
        lengths=score.lengths_of(suite, source.path) if source else (),
        powers=plan_power(suite),
        joint_probability_of_go=joint_probability_of_go(suite),
    )
