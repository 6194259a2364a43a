"""The candidate's arm: one server answers the smoke prompts and the suite."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from harness import score
from harness.arms.findings import refuse_findings
from harness.arms.gpus import Gpus, free_gpu_memory
from harness.artifacts import (
    Endpoint,
    EngineSpec,
    Probe,
    Scorecard,
    SmokeSet,
    Suite,
    save,
)
from harness.errors import EngineError, ReasonCode, RejectedError
from harness.models import unchanged
from harness.serve import Served, serve

DEPLOYMENT_FILE = "deployment.json"
_OF_THE_FILES = frozenset({ReasonCode.SCALE_MISSING, ReasonCode.SCALE_MISMATCH})
"""What an engine may say of a candidate's files, which no second try would change."""


class CandidateOrder(NamedTuple):
    """A checkpoint to serve, look at and score."""

    engine: EngineSpec
    folder: Path
    digest: str
    """Of the folder's files; nothing else may be served in their place."""
    suite: Suite
    into: Path
    gpus: Gpus = None
    waived: frozenset[str] = frozenset()
    """Ids of findings that a reviewed waiver answers for."""


class Candidate:
    """A checkpoint that is served from its first use until the context ends."""

    def __init__(self, order: CandidateOrder) -> None:
        self._order = order
        self._server = ExitStack()
        self._served: Served | Endpoint | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def numerics(self) -> str:
        """Return which arithmetic is asked for."""
        return self._order.engine.numerics

    def probe(self, prompts: SmokeSet) -> Probe:
        """Put the smoke set to it.

        Raises:
            RejectedError: the deployment shows a fault of the checkpoint.
            EngineError: the engine failed.
            EvidenceError: the files are not those that were verified, or change meanwhile.
        """
        with self._unchanged("smoked"):
            return score.probe(self._start(), prompts, arm="candidate")

    def score(self) -> Scorecard:
        """Score it with the suite.

        Raises:
            RejectedError: the deployment shows a fault of the checkpoint.
            EngineError: the engine failed.
            EvidenceError: the files are not those that were verified, or change meanwhile.
        """
        with self._unchanged("scored"):
            return score.score(
                self._start(), self._order.suite, arm="candidate", into=self._order.into
            )

    def stop(self) -> None:
        """Stop its server; the next use starts one again."""
        self._served = None
        self._server.close()

    def _unchanged(self, meanwhile: str) -> AbstractContextManager[None]:
        return unchanged(self._order.folder, self._order.digest, meanwhile=meanwhile)

    def _start(self) -> Served | Endpoint:
        if self._served is None:
            engine, folder, _, _, into, gpus, waived = self._order
            into.mkdir(parents=True, exist_ok=True)
            free_gpu_memory()
            (into / DEPLOYMENT_FILE).unlink(missing_ok=True)
            with self._unchanged("loaded"), _rejecting():
                served = self._server.enter_context(serve(engine, folder, records=into, gpus=gpus))
            save(served.deployment, into / DEPLOYMENT_FILE)
            refuse_findings(served.deployment, waived)
            self._served = served
        return self._served


@contextmanager
def _rejecting() -> Iterator[None]:
    """Turn an engine's refusal of the candidate's own scales into NO-GO, as a finding is.

    Raises:
        RejectedError: the files lack a scale, or have one that is none.
    """
    try:
        yield
    except EngineError as error:
        if error.reason not in _OF_THE_FILES:
            raise
        raise RejectedError(str(error), reason=error.reason) from error
