"""Where what a run ended with comes from: hops from the source to the deployment, and clues."""

from dataclasses import dataclass
from enum import StrEnum


class OriginStage(StrEnum):
    """What made a candidate other than it should be, in the order in which it is made."""

    CALIBRATION = "calibration"
    """The recorded ranges are not what the data and the weights give, or are missing."""
    QUANTIZATION = "quantization"
    """Codes and scales are not what the ranges give, or the plan is not what the recipe says."""
    EXPORT = "export"
    """The files are not what was made: tensors, declarations, tokenizer, template."""
    LOADER = "loader"
    """An engine computes with other tensors than the files hold."""
    KERNEL = "kernel"
    """What is deployed computes other numbers than the emulation of the same arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clue:
    """One thing that is not what it should be."""

    stage: OriginStage
    subject: str
    """The first of what is off, such as a tensor's whole name."""
    message: str
    """What is wrong with it, beginning with its name."""
    count: int = 1
    """How many like it there are."""
    decisive: bool = True
    """Whether it names the stage by itself; else only where the answers part there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """The same texts, read one step further from the source."""

    name: str
    what: str
    """Which model reads them, in words."""
    stages: tuple[OriginStage, ...] = ()
    """What it means that answers part here; none where a difference is what the recipe costs."""
    looked: bool = True
    nll: float | None = None
    """Mean negative log probability of a token, in nats; None where one is not finite."""
    difference: float | None = None
    """Mean absolute difference of a token's log probability from the hop before that was looked
    at, in nats; None for the first one and where nothing finite was read."""
    bound: float | None = None
    """Beyond which the answers part: what rounding explains. None where that is not asked."""
    parted: bool = False
    layer: str | None = None
    """The first decoder layer whose hidden states part, where both hops ran in this process."""
    note: str = ""
    """Why it was not looked at, what refused it, or what else is to be known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Localization:
    """Where it comes from, as far as could be looked."""

    stage: OriginStage | None
    """None where nothing parts, or where it cannot be said."""
    sentence: str
    hops: tuple[Hop, ...]
    clues: tuple[Clue, ...]
    """In the order of stages."""
    unseen: tuple[str, ...]
    """What was not looked at, and why: the claim does not hold for it."""
    ending: str
    """How the run itself ended."""
    num_tokens: int
    """Of the texts that were read."""
