"""What both arms answered before scoring, and what the comparison shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from harness.artifacts.checkpoint import Check, Severity
from harness.artifacts.served import Deployment

KLD_CHECK = "smoke-kld"
"""The measure without which a smoke run proves nothing: word salad can look normal."""


class Mode(StrEnum):
    """How a prompt was put."""

    GREEDY = "greedy"
    """The likeliest token each time; by itself where an answer is known."""
    BATCHED = "batched"
    """The same, with all the other prompts at once."""
    SAMPLED = "sampled"
    """All at once at temperature 1, drawn with the set's seed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The log probabilities of one passage."""

    passage: str
    tokens: tuple[int, ...]
    """The first one only begins the text; each of the others was predicted."""
    logprobs: tuple[float | None, ...]
    """Natural logarithm of each token's probability, from the second on; None if not finite."""
    top: tuple[Mapping[int, float], ...]
    """The likeliest tokens at each of these places, and the token that is there."""
    error: str | None = None
    """Why there are none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a model said to one prompt."""

    ask: str
    mode: Mode
    text: str
    finish: str
    """`stop`, `length` or `error`."""
    error: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """What one arm answered to a smoke set."""

    arm: str
    """`baseline` or `candidate`."""
    set_digest: str
    deployment: Deployment
    readings: tuple[Reading, ...]
    """Empty where the server has no log probabilities of a prompt."""
    replies: tuple[Reply, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """One number of the comparison, with what it may be at most."""

    name: str
    baseline: float | None
    """The arm's own value, where it has one by itself."""
    candidate: float | None
    difference: float
    """What the limit is for, such as nats a token or a share of 1."""
    stderr: float | None
    """Standard error of the difference, clustered by passage; None for what is counted."""
    limit: float
    """An alarm is raised beyond it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideBySide:
    """Both arms' answers to one prompt."""

    ask: str
    mode: Mode
    prompt: str
    expect: tuple[str, ...]
    baseline: str
    candidate: str
    lost: bool
    """Whether the baseline gave the expected answer and the candidate did not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmokeReport:
    """The comparison of both arms' probes."""

    smoke: str
    """Name of the set."""
    set_digest: str
    checkpoint_digest: str
    """Of the candidate's files."""
    baseline_digest: str | None
    """Of the baseline's files; None where it has no answers."""
    numerics: str
    """`deployed` or `declared`: which arithmetic of the candidate was looked at."""
    declared: tuple[str, ...]
    """Parts of its arithmetic that the checkpoint declares, as Deployment lists them."""
    exercised: tuple[str, ...]
    """Those that answered here."""
    checks: tuple[Check, ...]
    """One that could not be run is a warning and has not passed."""
    measures: tuple[Measure, ...]
    answers: tuple[SideBySide, ...]
    """Lost ones first."""

    @property
    def errors(self) -> tuple[Check, ...]:
        """Failed checks that end the run before it is scored."""
        return tuple(c for c in self.checks if not c.passed and c.severity is Severity.ERROR)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Parts that are declared and did not answer."""
        return tuple(part for part in self.declared if part not in self.exercised)

    @property
    def passed(self) -> bool:
        """Whether texts were compared token by token and no check failed."""
        return not self.errors and self.compared

    @property
    def compared(self) -> bool:
        """Whether texts were compared token by token."""
        return any(one.name == KLD_CHECK for one in self.measures)
