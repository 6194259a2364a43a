"""Tasks that NeMo Evaluator asks of an arm's server: its own run, read like any bundle."""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness import nel, score
from harness.artifacts import Endpoint, Suite, TaskSpec
from harness.errors import EngineError, ScoringError, SuiteError, UsageError
from harness.foreign import Recorded, read_recorded, to_arm
from harness.serve import Served

_log = logging.getLogger("harness.score")


def asks_elsewhere(
    served: Served | Endpoint, suite: Suite, *, arm: str
) -> "score.Elsewhere | None":
    """Return what asks the suite's tasks of NeMo Evaluator; None where it has none.

    Raises:
        SuiteError: the model has no address.
    """
    if not suite.of_nel:
        return None
    if not isinstance(served, Endpoint):
        message = "the reference engine has no address that NeMo Evaluator could ask."
        raise SuiteError(message)
    endpoint = served

    def ask(specs: Sequence[TaskSpec], into: Path) -> "Mapping[str, score.Answered]":
        names = ", ".join(dict.fromkeys(spec.asked for spec in specs))
        _log.info("score: NeMo Evaluator asks %s", names)
        variable = endpoint.api_key_variable
        server = nel.Server(
            url=f"{endpoint.base_url}/v1",
            model=endpoint.model,
            key=endpoint.api_key or (os.environ.get(variable) if variable else None),
            check=lambda: _check_alive(endpoint),
        )
        bundles = nel.evaluate(server, suite, specs, into=into)
        _check_alive(endpoint)
        return _read(bundles, dataclasses.replace(suite, tasks=tuple(specs)), arm)

    return ask


def _read(bundles: Path, suite: Suite, arm: str) -> "Mapping[str, score.Answered]":
    """Return what lies in NeMo Evaluator's folder.

    Raises:
        ScoringError: it is not what was asked for.
    """
    try:
        recorded = read_recorded(bundles)
        found = to_arm(recorded, suite, arm=arm)
    except UsageError as error:
        raise ScoringError(str(error), reason=error.reason) from error
    return {
        spec.name: score.Answered(found.samples[spec.name], _generation(recorded, suite, spec))
        for spec in suite.tasks
        if spec.name in found.samples
    }


def _generation(recorded: Recorded, suite: Suite, spec: TaskSpec) -> str:
    """Return what shaped the answers: what the records say of it, and what was told before."""
    asked = dict(recorded.members(spec.asked)[0].conditions)
    if suite.nel is not None:
        asked["how NeMo Evaluator asks"] = suite.nel.digest
    return json.dumps(asked, sort_keys=True, default=str)


def _check_alive(endpoint: Endpoint) -> None:
    """Refuse to go on without the server: its failed requests are no answers.

    Raises:
        EngineError: it is gone.
    """
    if endpoint.process is not None and not endpoint.process.still_runs():
        message = "the server ended while NeMo Evaluator asked it"
        raise EngineError(message)
