"""The smoke stage: a few answers of both arms, compared before hours of scoring.

Where kernels hide declared numerics, an emulation of them is asked as well.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import NamedTuple

from harness.arms.candidate import Candidate, CandidateOrder
from harness.arms.measuring import Measuring
from harness.artifacts import MadeFrom, Probe, SmokeReport, SmokeSet, digest_of
from harness.errors import EngineError, PrerequisiteError
from harness.rundir import RunDirectory
from harness.serve import can_emulate
from harness.smoke import compare, refuse_failed
from harness.stages import SMOKE, SMOKE_DECLARED

DECLARED = "declared"
"""Folder of the run directory with the records of the emulation."""
_log = logging.getLogger("harness.run")


class SmokeBaseline(NamedTuple):
    """Where the baseline's answers to the smoke set are, or who gives them."""

    prompts: SmokeSet
    known: Probe | None
    """Kept in the run directory."""
    measuring: Measuring | None
    """None where nothing is measured."""

    @property
    def comes_first(self) -> bool:
        """Whether the candidate's server is started only when they are there."""
        measuring = self.measuring
        return measuring is None or not measuring.has_begun or measuring.together.waits

    def answers(self, *, give_way: Callable[[], None]) -> Probe | None:
        """Return them, asked now if nobody did; None where nobody can be asked."""
        if self.known is not None or self.measuring is None:
            return self.known
        return self.measuring.probe(self.prompts, give_way=give_way)


def smoke(
    run: RunDirectory,
    order: CandidateOrder,
    candidate: Candidate,
    baseline: SmokeBaseline,
    *,
    made_from: MadeFrom,
) -> None:
    """Compare a few answers of both arms; where kernels hide declared numerics, on those too.

    Raises:
        RejectedError: the candidate's answers, or its deployment, show a fault.
        EngineError: the engine failed.
    """
    report = run.stage(
        SMOKE, made_from=made_from, make=lambda: smoke_candidate(candidate, baseline)
    )
    refuse_failed(report, waived=order.waived)
    if not report.hidden or not report.compared or order.engine.numerics == "declared":
        return
    if not can_emulate(order.engine):
        return
    candidate.stop()
    engine = dataclasses.replace(order.engine, numerics="declared")
    emulated = order._replace(engine=engine, into=run.path / DECLARED, ahead=None)
    try:
        with Candidate(emulated, candidate.measuring) as emulation:
            report = run.stage(
                SMOKE_DECLARED,
                made_from={**made_from, "engine": digest_of(engine.identity())},
                make=lambda: smoke_candidate(emulation, baseline),
            )
    except (EngineError, PrerequisiteError) as error:
        _log.warning("smoke: the declared numerics cannot be emulated: %s", error)
        return
    refuse_failed(report, waived=order.waived)


def smoke_candidate(candidate: Candidate, baseline: SmokeBaseline) -> SmokeReport:
    """Compare the candidate's answers to the smoke set with the baseline's.

    Raises:
        RejectedError: the candidate's deployment shows a fault of the checkpoint.
        EngineError: the engine failed.
    """
    if baseline.comes_first:
        baseline.answers(give_way=candidate.stop)
    theirs = candidate.probe(baseline.prompts)
    known = baseline.answers(give_way=candidate.stop)
    return compare(baseline.prompts, known, theirs, numerics=candidate.numerics)
