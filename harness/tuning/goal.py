"""What is asked for: a budget of bits or a suite to pass, with which formats."""

import math
from typing import NamedTuple

from harness.artifacts import LEFT
from harness.errors import UsageError
from harness.request import Request

TOKENS = 8192
"""Of text that sensitivities are measured on."""
_FEWEST_TOKENS = 4
_SHOWN = 0.005
"""Bits count as they are printed, to two digits."""


class Goal(NamedTuple):
    """What a recipe must meet."""

    bits: float | None
    """At most so many stored bits a weight."""
    suite: str | None
    """The smallest recipe that gets GO here."""

    def __str__(self) -> str:
        """Return it as it is said."""
        return f"suite {self.suite}" if self.bits is None else f"{self.bits:.2f} bits"

    def capacity(self, num_weights: int) -> float:
        """Return the stored bits that it allows."""
        if self.bits is None:
            return math.inf
        return (self.bits + _SHOWN * 0.999) * num_weights


class Wanted(NamedTuple):
    """All that was typed."""

    request: Request
    """Of each run of the gate, without a recipe."""
    goal: Goal
    formats: tuple[str, ...]
    """Names of recipes with one format each, `none` left out."""
    may_leave: bool
    """Whether `none` is among the formats."""
    algorithm: str
    """Ending of a format's name; empty for none."""
    tokens: int


def wanted(request: Request, goal: Goal, formats: str, algorithm: str, tokens: int) -> Wanted:
    """Return what was typed, once it makes sense.

    Raises:
        UsageError: it does not.
    """
    if (goal.bits is None) == (goal.suite is None):
        message = (
            "a recipe is tuned to a budget or to a suite. Type one of --bits 4.8 and "
            "--margin SUITE."
        )
        raise UsageError(message)
    if goal.bits is not None and not 0 < goal.bits < math.inf:
        message = f"--bits {goal.bits:g}: no weight takes so many. Type a number such as 4.8."
        raise UsageError(message)
    if goal.suite is not None and request.suite is not None:
        message = (
            f"--margin {goal.suite} names the suite that must be passed, and --suite "
            f"{request.suite} another one. Leave out --suite."
        )
        raise UsageError(message)
    names = tuple(dict.fromkeys(name.strip() for name in formats.split(",") if name.strip()))
    made = tuple(name for name in names if name != LEFT)
    if not made or len(names) == 1:
        message = (
            f"--formats '{formats}' leaves nothing to choose. Name at least one format and another "
            "one, or 'none' for what is left as it is: --formats nvfp4,fp8,none."
        )
        raise UsageError(message)
    if tokens < _FEWEST_TOKENS:
        message = (
            f"--tokens {tokens}: two texts of two tokens are the least. Type --tokens {TOKENS}."
        )
        raise UsageError(message)
    return Wanted(request, goal, made, LEFT in names, algorithm, tokens)
