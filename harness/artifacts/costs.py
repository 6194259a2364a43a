"""What an answer of the candidate costs beside the baseline's: its length, its time, its memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.artifacts.recipe import Tier
from harness.errors import ReasonCode


class Standing(StrEnum):
    """Where a ratio lies with respect to its band."""

    WITHIN = "within"
    """Shown to be within it."""
    BEYOND = "beyond"
    """Shown to be outside."""
    UNCLEAR = "unclear"
    """The answers show neither."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthVerdict:
    """How long the candidate's answers are beside the baseline's, in tokens."""

    tier: Tier
    band: float
    """0.05 allows ratios from 1 / 1.05 to 1.05."""
    num_items: int
    """Whose answers are counted in both arms."""
    baseline: float
    """Mean tokens of an answer, thoughts included."""
    candidate: float
    ratio: float
    """Geometric mean of candidate / baseline, item by item."""
    low: float
    """One-sided lower bound of the ratio."""
    high: float
    """One-sided upper bound."""
    num_cut_baseline: int
    """Answers that ended at the budget: they would have been longer."""
    num_cut_candidate: int
    standing: Standing
    reason: ReasonCode
    message: str
    baseline_thoughts: float | None = None
    """Mean tokens of what was thought before the answer; None where nothing was, or nobody says."""
    candidate_thoughts: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeights:
    """The weight files of a model, as they are served."""

    num_bytes: int
    bits_per_weight: float
    """Of all of its tensors together, packed ones counted by what they hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeVerdict:
    """How large the candidate's weight files are beside the baseline's."""

    baseline_bytes: int
    candidate_bytes: int
    promised_bytes: int
    """If each quantized weight took the bits of its format, and all others what they take now."""
    reduced: bool
    """Whether at least half of what the format promises is saved."""
    message: str

    @property
    def times_smaller(self) -> float:
        """Return how many times smaller the candidate's files are."""
        return self.baseline_bytes / max(self.candidate_bytes, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PaceBlock:
    """Requests of one task that were answered one after another."""

    num_tokens: int
    seconds: float
    """The sum of what each of them took."""
    num_answers: int | None = None
    """How many there are; None of scores by an older version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How fast the generated answers of one task came, and under which conditions."""

    began: str
    """UTC, ISO 8601."""
    seconds: float
    """From there to its end."""
    machine: str
    """Digest that is another on every machine, and after each of its starts; empty if unknown."""
    alone: bool
    """Whether nothing else of the same run was at work on the machine."""
    num_at_once: int
    """Requests that were answered at once, at most."""
    blocks: tuple[PaceBlock, ...]
    """In the order in which the requests were sent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmTimes:
    """How fast one arm answered, and what it took."""

    paces: Mapping[str, Pace] = field(default_factory=dict)
    """By task; of those whose answers are generated."""
    first_token_s: float | None = None
    """Mean time to the first token over all requests, as the server counts it."""
    memory_bytes: int | None = None
    """Of the weights on its GPUs as the engine says, else of its processes in the host's memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeedVerdict:
    """How fast the candidate answers beside the baseline; where nobody can say, without numbers."""

    tier: Tier
    band: float
    """0.05 allows a candidate that is slower by a factor of 1 / 1.05."""
    standing: Standing
    reason: ReasonCode
    message: str
    why_not: str = ""
    """Why the speeds cannot be compared, as a clause; empty where they can."""
    is_claim: bool = True
    """Whether it says anything of a deployment, which the speed of emulated arithmetic does not."""
    baseline: float | None = None
    """Tokens a second of one request, the geometric mean over blocks."""
    candidate: float | None = None
    ratio: float | None = None
    """Geometric mean of candidate / baseline over blocks of the same requests."""
    low: float | None = None
    high: float | None = None
    num_blocks: int = 0
    first_token_baseline_s: float | None = None
    first_token_candidate_s: float | None = None
    load_baseline_s: float | None = None
    load_candidate_s: float | None = None
    memory_baseline: int | None = None
    memory_candidate: int | None = None
