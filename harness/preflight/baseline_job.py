"""Resolve and check `harness baseline add`: an unquantized model and what it is asked."""

import dataclasses
from dataclasses import dataclass

from harness.artifacts import BaselineInputs, EngineSpec, Suite
from harness.baselines import check_writable, inputs_of
from harness.models import Source
from harness.preflight.asked import check_asked
from harness.preflight.engine import choose_engine, resolve_device
from harness.preflight.job import check_questions
from harness.preflight.problems import Problems
from harness.preflight.unquantized import open_unquantized
from harness.recipe import Request, load_engine, load_suite
from harness.serve import check_served, read_demands


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
    suite = problems.attempt(lambda: load_suite(str(request.suite), margin=request.margin))
    source = problems.attempt(lambda: open_unquantized(request.model, request.revision))
    if suite is not None:
        check_questions(problems, suite)
    if suite is None or source is None:
        problems.raise_any()
        raise AssertionError  # one of the attempts above has failed
    engine = problems.attempt(lambda: _engine(request, suite, source))
    problems.attempt(check_writable)
    problems.attempt(lambda: check_asked(suite, source))
    problems.raise_any()
    if engine is None:
        raise AssertionError  # raise_any has raised
    inputs = inputs_of(source, engine, suite)
    return BaselineJob(source=source, engine=engine, suite=suite, inputs=inputs)


def _engine(request: Request, suite: Suite, source: Source) -> EngineSpec:
    engine = load_engine(request, suite)
    engine = dataclasses.replace(engine, device=resolve_device(engine.device))
    engine = choose_engine(engine, source)
    check_served(engine, read_demands(source))
    return engine
