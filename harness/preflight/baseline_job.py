"""Resolve and check `harness baseline add`: an unquantized model and what it is asked."""

from dataclasses import dataclass

from harness.artifacts import BaselineInputs, EngineSpec, Suite
from harness.baselines import check_writable, inputs_of
from harness.models import Source
from harness.preflight.asked import note_asked
from harness.preflight.engine import check_answerable, engine_for
from harness.preflight.job import check_questions
from harness.preflight.nel_tasks import check_has_address
from harness.preflight.problems import Problems
from harness.preflight.unquantized import open_unquantized
from harness.recipe import Request, load_engine, suite_of


@dataclass(frozen=True, kw_only=True, slots=True)
class BaselineJob:
    """A model that is ready to be scored as a baseline."""

    source: Source
    engine: EngineSpec
    suite: Suite
    inputs: BaselineInputs


def preflight_baseline(request: Request) -> BaselineJob:
    """Resolve and check a baseline that is to be measured.

    Raises:
        UsageError: everything that is wrong, with what to do about each.
    """
    problems = Problems()
    suite = problems.attempt(lambda: suite_of(request, str(request.suite)))
    opened = problems.attempt(lambda: open_unquantized(request.model, request.revision))
    if suite is not None:
        suite = check_questions(problems, suite)
    asked, source = problems.demand(suite), problems.demand(opened)
    found = problems.attempt(lambda: _engine(request, asked, source))
    problems.attempt(check_writable)
    note_asked(problems, asked, source)
    problems.raise_any()
    engine = problems.demand(found)
    inputs = inputs_of(source, engine, asked)
    return BaselineJob(source=source, engine=engine, suite=asked, inputs=inputs)


def _engine(request: Request, suite: Suite, source: Source) -> EngineSpec:
    typed = load_engine(request, suite)
    check_answerable(typed, suite)
    engine = engine_for(typed, source)
    check_has_address(engine, suite)
    return engine
