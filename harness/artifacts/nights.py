"""One cell of a nightly in one night: what was run, on what, and how it ended.

A cell is a model, a recipe, an engine and its version, a suite and a kind of hardware. A row is
what the ledger of nightlies keeps of one run of it; the run directory that it names holds the rest,
item by item.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.artifacts.limits import STRICT, Stripped
from harness.artifacts.recipe import Tier
from harness.artifacts.scale import Scale
from harness.artifacts.scores import Decision
from harness.artifacts.waivers import Day


class CellEnding(StrEnum):
    """How a cell ended; only GO is green."""

    GO = "GO"
    NO_GO = "NO-GO"
    INCONCLUSIVE = "INCONCLUSIVE"
    INFRA_FAILED = "infra-failed"
    """Not the model's doing: no memory, no disk, a server or a machine that died."""
    BOTH_ARMS_FAILED = "both-arms-failed"
    """The baseline failed as the candidate did, so that nothing is said of the candidate."""
    NO_BASELINE = "no-baseline"
    """There is nothing that the candidate could be compared with."""
    NOT_RUN = "not-run"
    """It was to run and did not: refused, left out, or the nightly ended before."""


class Purpose(StrEnum):
    """Why a cell was run; only a regular run enters the statistics."""

    REGULAR = "regular"
    RETRY = "retry"
    """Again, after a run that failed for a reason which may pass."""
    CONFIRMATION = "confirmation"
    """Again, on the same bytes and environment, because an alarm was raised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskNight:
    """A task of a cell, as its verdict says it."""

    task: str
    tier: Tier
    baseline: float | None
    """Accuracy as a fraction of 1; None where there is none. The same holds for all below."""
    candidate: float | None
    difference: float | None
    low: float | None
    """One-sided bounds of the difference."""
    high: float | None
    margin: float
    num_items: int
    decision: Decision
    scale: Scale = Scale.SHARE
    """What the scores are; of a perplexity the bounds are on another scale than the scores."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AgainstAnchor:
    """A night beside the cell's anchor, its last signed-off run: a task, or a measure."""

    anchor: str
    """Id of the anchor."""
    what: str
    """The task, `all tasks`, or the name of a measure."""
    difference: float
    """Night minus anchor, paired item by item: of accuracies as a fraction of 1, of a perplexity
    minus the logarithm of the ratio; of a measure the logarithm of the ratio, its sign turned where
    more is worse. So below 0 is worse, whatever it is."""
    noise: float | None
    """Standard deviation of the difference between two runs of the same bytes (A/A); None where
    none is on record."""
    spread: float = 0.0
    """Standard deviation of the difference if each item's sign were chance; 0 of a measure."""
    num_items: int = 0
    num_lost: int = 0
    num_won: int = 0
    p_value: float | None = None
    """Of so many losses if the night were no worse; None of a measure."""
    num_tests: int = 1
    """Of the same cell in the same night, this one included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellWaiver:
    """Why a cell's ending does not count until a day; it runs and is recorded all the same."""

    __pydantic_config__ = STRICT
    reason: Stripped
    approver: Stripped
    expires: Day
    """The last day on which it holds, UTC."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NightRow:
    """One run of one cell."""

    cell: str
    """Its name in the matrix."""
    night: str
    """Which nightly it belongs to, such as `2031-12-31`."""
    attempt: int
    """From 1 within the night."""
    purpose: Purpose
    started: str
    """UTC, such as `2031-12-31T01:02:03Z`."""
    ended: str
    ending: CellEnding
    exit_code: int | None
    """Of the cell's process; None where none was started or none is known."""
    reason_codes: tuple[str, ...]
    message: str
    """One line: the verdict's summary, or why there is none."""
    digests: Mapping[str, str]
    """sha256 by name: `recipe`, `checkpoint`, `baseline`, `suite`, `engine`, `image`, `versions`
    (of what changes numbers), `environment` (of all that is installed); what is not known is not
    there."""
    host: str
    """Name of the machine; empty where it did not run."""
    gpu: str
    """As the deployment says it, such as `NVIDIA H200 (sm_90)`."""
    harness: str
    """Version and commit of harness."""
    engine: str
    """Name and version that really served, such as `vllm 0.33.0`."""
    run_dir: str
    """Relative to the ledger's folder where it lies below it; empty where there is none."""
    tasks: tuple[TaskNight, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)
    """What else is followed over nights, by name: `flip_rate`, `pooled_difference`, `kld`,
    `tokens_per_s`, `memory_bytes`, `load_s`, `answer_tokens`; what is not known is not there."""
    waiver: CellWaiver | None = None
    against: tuple[AgainstAnchor, ...] = ()
    not_compared: str = ""
    """Why there is nothing in `against`, or not all that there might be; empty where all is."""

    @property
    def is_green(self) -> bool:
        """Return whether it ended GO: a waiver excuses an ending and never makes it green."""
        return self.ending is CellEnding.GO

    @property
    def is_counted(self) -> bool:
        """Return whether it enters the statistics of the cell."""
        return self.purpose is Purpose.REGULAR


class AlarmKind(StrEnum):
    """What raised an alarm."""

    LOSS = "loss"
    """One night is proven to be worse than the anchor, item by item."""
    DRIFT = "drift"
    """Many nights together are, though none alone is: a one-sided CUSUM."""


class AlarmCause(StrEnum):
    """What the rerun on the same bytes and environment made of an alarm."""

    UNCONFIRMED = "unconfirmed"
    """It was not run again yet; nobody is told."""
    REAL = "real"
    FLAKY = "flaky"
    """Run again, it was not there."""
    INFRASTRUCTURE = "infrastructure"
    """Run again on another host, or after a failed start, it was not there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """A cell that got worse than its anchor, its last signed-off run."""

    cell: str
    night: str
    """In which it was raised."""
    kind: AlarmKind
    what: str
    """The task, or the name of a measure."""
    since: str
    """The night from which on it is estimated to be so."""
    cause: AlarmCause
    message: str
    """One line with the numbers."""
    stands: bool = True
    """Whether it is real and still there in the last night that is known."""
