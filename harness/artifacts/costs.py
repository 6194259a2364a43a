"""What an answer of the candidate costs beside the baseline's: its length, its time, its memory."""

from dataclasses import dataclass
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
