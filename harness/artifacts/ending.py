"""A candidate's scoring that ended before every item was asked."""

from dataclasses import dataclass
from enum import StrEnum


class WhyEnded(StrEnum):
    """What was known when no more was asked."""

    INFERIOR = "inferior"
    """A critical task has lost more than it may: NO-GO."""
    OUT_OF_REACH = "out-of-reach"
    """A critical task cannot be GO any more, were everything else answered rightly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyEnd:
    """Where scoring ended, and what was not asked."""

    task: str
    """The critical task that ended it."""
    why: WhyEnded
    items: tuple[int, ...]
    """Its items that were asked, by number, in the order of the task."""
    not_asked: tuple[str, ...] = ()
    """Tasks of which nothing is judged: not asked, or not to their end."""
    share: float
    """What was asked, as a share of what all answers are expected to cost."""
    seconds: float
    """How long the asking took."""

    @property
    def saved(self) -> str:
        """Return what was saved, in words: all of the suite is estimated by its budgets."""
        return (
            f"{self.share:.1%} of the suite, by the tasks' budgets, took {self.seconds:.1f} s; all "
            f"of it would take {1 / self.share:.1f} times as long"
        )
