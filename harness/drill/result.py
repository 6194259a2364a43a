"""What a drill found out."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from harness.artifacts import Decision
from harness.drill.defenses import Defense
from harness.drill.fault import Kind
from harness.errors import ExitCode

_WORST_FIRST = (ExitCode.BUG, ExitCode.STAGE_FAILED, ExitCode.NO_GO, ExitCode.INCONCLUSIVE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One run with a fault in it."""

    off: Defense | None
    """The defense that was switched off."""
    caught_by: Defense | None
    """None where the run went on to GO, or ended for a reason that is not the fault."""
    evidence: tuple[str, ...]
    """Ids of the checks that failed, or reason codes."""
    decision: Decision | None
    """None for a run that was refused or failed before a verdict."""
    exit_code: ExitCode
    """The run's."""
    message: str
    seconds: float
    """Until the ending was known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drilled:
    """One fault, put back twice."""

    fault: str
    incident: str
    what: str
    kind: Kind
    format: str
    first: Attempt
    second: Attempt | None
    """With the first defense switched off; None where it cannot be, or nothing was caught."""
    folder: str
    """Of its runs."""

    @property
    def exit_code(self) -> ExitCode:
        """Return 0 if the fault was stopped, by a defense rather than by the machine or a bug.

        With a defense switched off it may be stopped by nothing but that; GO it may never get.
        """
        passes = [one for one in (self.first, self.second) if one is not None]
        if any(one.exit_code is ExitCode.BUG for one in passes):
            return ExitCode.BUG
        if any(one.decision is Decision.GO for one in passes):
            return ExitCode.NO_GO
        return ExitCode.STAGE_FAILED if self.first.caught_by is None else ExitCode.GO


@dataclass(frozen=True, kw_only=True, slots=True)
class Correct:
    """A correct run, which must get GO."""

    format: str
    decision: Decision | None
    exit_code: ExitCode
    message: str
    seconds: float
    """Of all its stages but the baseline, the last time that each ran."""
    folder: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DrillReport:
    """All of a drill."""

    engine: str
    suite: str
    correct: tuple[Correct, ...] = ()
    drilled: tuple[Drilled, ...] = ()
    finished: bool = False
    """Whether it came to its end."""

    def plus(self, part: "Correct | Drilled", *, order: Sequence[str]) -> Self:
        """Return it with one part more, its kind's parts by the order of their names."""
        if isinstance(part, Correct):
            correct = sorted((*self.correct, part), key=lambda one: order.index(one.format))
            return dataclasses.replace(self, correct=tuple(correct))
        drilled = sorted((*self.drilled, part), key=lambda one: order.index(one.fault))
        return dataclasses.replace(self, drilled=tuple(drilled))

    @property
    def num_caught(self) -> int:
        """Return how many faults were stopped."""
        return sum(one.exit_code is ExitCode.GO for one in self.drilled)

    @property
    def exit_code(self) -> ExitCode:
        """Return the worst of all parts; 0 if all faults were stopped and all else got GO."""
        codes = {one.exit_code for one in self.correct} | {one.exit_code for one in self.drilled}
        return next((code for code in _WORST_FIRST if code in codes), ExitCode.GO)
