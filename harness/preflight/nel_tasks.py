"""The tasks that NeMo Evaluator asks: found, loaded and tried before anything is served."""

import dataclasses

from harness.artifacts import EngineSpec, Suite
from harness.errors import SuiteError
from harness.nel import examine
from harness.preflight.problems import Problems


def with_nel(problems: Problems, suite: Suite) -> Suite:
    """Return the suite with what NeMo Evaluator tells of its tasks, and note what is wrong."""
    if suite.nel is None:
        return suite
    told = problems.attempt(lambda: examine(suite))
    if told is None:
        return suite
    problems.note(told.mistakes)
    return dataclasses.replace(suite, nel=told.spec)


def check_has_address(engine: EngineSpec, suite: Suite) -> None:
    """Refuse an engine in this process where NeMo Evaluator is to ask it.

    Raises:
        SuiteError: with what to type.
    """
    if suite.nel is not None and engine.name == "reference":
        message = (
            f"suite '{suite.name}' has tasks of NeMo Evaluator, which asks a server, and the "
            "reference engine answers in this process. Type --engine vllm."
        )
        raise SuiteError(message)
