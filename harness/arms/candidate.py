"""The candidate's arm: one server answers the smoke prompts and the suite."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self, TypeVar

from harness import score
from harness.arms.elsewhere import asks_elsewhere
from harness.arms.findings import DEPLOYMENT_FILE, refuse_findings
from harness.arms.gpus import Gpus, free_gpu_memory
from harness.arms.measuring import Measuring, alone, is_crowded
from harness.arms.watching import BaselineWatch
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
from harness.serve import Ahead, Served, serve

T = TypeVar("T")
_log = logging.getLogger("harness.arms")
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
    watched: tuple[Path, ...] = ()
    """Where the baseline's answers lie or appear, if scoring may end early for them."""
    ahead: Ahead | None = None
    """What was begun of its server, for the first start."""


class Candidate:
    """A checkpoint that is served from its first use until the context ends."""

    def __init__(self, order: CandidateOrder, measuring: Measuring | None = None) -> None:
        """Start nothing yet.

        Args:
            order: what is served.
            measuring: the baseline, whose server may be at work on the same device.
        """
        self._order = order
        self.measuring = measuring
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
            return self._asked(lambda served: score.probe(served, prompts, arm="candidate"))

    def score(self) -> Scorecard:
        """Score it with the suite.

        Raises:
            RejectedError: the deployment shows a fault of the checkpoint.
            EngineError: the engine failed.
            EvidenceError: the files are not those that were verified, or change meanwhile.
        """
        suite, into = self._order.suite, self._order.into
        alone = self.measuring is None or not self.measuring.has_begun
        watch = BaselineWatch(suite, self._order.watched) if self._order.watched else None
        with self._unchanged("scored"):
            return self._asked(
                lambda served: score.score(
                    served,
                    suite,
                    arm="candidate",
                    into=into,
                    alone=alone,
                    watch=watch,
                    elsewhere=asks_elsewhere(served, suite, arm="candidate"),
                )
            )

    def stop(self) -> None:
        """Stop its server; the next use starts one again."""
        self._served = None
        self._server.close()

    def _asked(self, ask: Callable[[Served | Endpoint], T]) -> T:
        """Return what `ask` makes of the server, of one by itself where two were too many."""
        measuring = self.measuring
        was_beside = measuring is not None and measuring.is_beside
        try:
            return ask(self._start())
        except EngineError as error:
            found = self._explained(error)
            if measuring is None or not was_beside or not is_crowded(found):
                raise found from error.__cause__
        _log.warning(
            "arms: the candidate found too little memory beside the baseline, it is started again "
            "when that is measured: %s",
            str(found).partition("\n")[0],
        )
        measuring.wait()
        self._order = self._order._replace(engine=alone(self._order.engine))
        return ask(self._start())

    def _explained(self, error: EngineError) -> EngineError:
        """Stop the server, and return the error as the server's end explains it."""
        self._served = None
        try:
            with self._server.pop_all():
                raise error
        except EngineError as explained:
            return explained

    def _unchanged(self, meanwhile: str) -> AbstractContextManager[None]:
        return unchanged(self._order.folder, self._order.digest, meanwhile=meanwhile)

    def _start(self) -> Served | Endpoint:
        if self._served is None:
            engine, folder, into = self._order.engine, self._order.folder, self._order.into
            gpus, waived = self._order.gpus, self._order.waived
            ahead = self._order.ahead
            into.mkdir(parents=True, exist_ok=True)
            free_gpu_memory()
            (into / DEPLOYMENT_FILE).unlink(missing_ok=True)
            with self._unchanged("loaded"), _rejecting():
                server = serve(engine, folder, records=into, gpus=gpus, ahead=ahead)
                served = self._server.enter_context(server)
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
