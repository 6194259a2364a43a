"""What was served, what it answered, and what follows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.artifacts.costs import (
    ArmTimes,
    LengthVerdict,
    SizeVerdict,
    SpeedVerdict,
)
from harness.artifacts.ending import EarlyEnd
from harness.artifacts.published import Plausibility
from harness.artifacts.recipe import Tier
from harness.artifacts.scale import Scale
from harness.artifacts.served import Deployment
from harness.artifacts.waivers import WaivedCheck
from harness.errors import ReasonCode

DEFAULT_BUDGET = 256
"""Tokens of an answer for a task that does not say; lm-eval's own default."""
THOUGHTS_CUT = "thoughts_cut"
"""How an answer ended whose thoughts outran their budget: there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One item and its answer, as one line of samples/<task>.jsonl."""

    doc_id: int
    doc_hash: str
    prompt_hash: str
    target_hash: str
    value: float
    """Metric of this item: 0 or 1, or between them where the suite gives a `value_range`; with a
    weight, the log-likelihood of its text in nats."""
    prompt: str
    target: str
    answer: str
    finish: str
    """`stop`, `length`, `thoughts_cut`, `timeout`, `error`, or `scored` of log-likelihoods."""
    cluster: str = ""
    """Group of the item, such as a subject; empty where items are independent."""
    num_tokens: int | None = None
    """All that was generated, thoughts and the token that ends it included; None where nothing was
    generated, or nobody counted."""
    num_thought_tokens: int | None = None
    """Of these, what was thought before the answer."""
    repeat: int = 0
    """Which of the item's answers it is; they lie one after another."""
    voted: str = ""
    """What the task's filter took from the answer, where items are asked several times."""
    weight: float | None = None
    """Words or bytes of its text, or 1 for a target, where the metric is a perplexity."""

    @property
    def is_known(self) -> bool:
        """Return whether its value is that of an answer.

        A request that failed has none. One that came too late is a wrong answer, but there is no
        log-likelihood of a text that was not read in time.
        """
        is_unread = self.weight is not None and self.finish == "timeout"
        return self.finish != "error" and not is_unread

    @property
    def is_cut(self) -> bool:
        """Return whether it outran a budget: its own, or that of the thoughts before it."""
        return self.finish in {"length", THOUGHTS_CUT}


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskScore:
    """One task of one arm."""

    task: str
    metric: str
    value: float
    """In the unit of `scale`."""
    stderr: float
    num_items: int
    num_errors: int
    num_empty: int
    num_truncated: int
    """Answers that outran a budget: their own, or that of the thoughts before them."""
    num_prompts_cut: int
    """Prompts that did not fit and lost tokens."""
    samples: str
    """Path of the samples' file, relative to the scorecard."""
    samples_sha256: str
    repeats: int = 1
    """Answers to each item; the counts above are of answers."""
    num_timeouts: int = 0
    """Answers that did not come in time; they count as wrong."""
    num_thoughts_cut: int = 0
    """Of the truncated: those whose thoughts outran theirs."""
    finishes: Mapping[str, int] = field(default_factory=dict)
    """How many answers ended for which reason."""
    scale: Scale = Scale.SHARE

    @property
    def num_answers(self) -> int:
        """Return how many answers were asked for."""
        return self.num_items * self.repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """Every task of one arm."""

    arm: str
    """`baseline` or `candidate`."""
    suite: str
    suite_digest: str
    deployment: Deployment
    tasks: tuple[TaskScore, ...]
    lm_eval_version: str
    generation: Mapping[str, str]
    """Arguments that change answers, by task, as JSON: stops, budget, sampling, shots."""
    times: ArmTimes | None = field(default=None, compare=False)
    """None of scores by an older version. The same answers are the same scores, however fast."""
    looks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """By task: after how many items its answers were looked at before all were there."""
    ended: EarlyEnd | None = None
    """Where the asking ended before every item was asked; None for a whole scorecard."""


GO_WITH_WAIVERS = "GO WITH WAIVERS"


class Decision(StrEnum):
    """Three-way answer; NO-GO wins over INCONCLUSIVE, which wins over GO."""

    GO = "GO"
    INCONCLUSIVE = "INCONCLUSIVE"
    NO_GO = "NO-GO"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovery:
    """The candidate's accuracy as a share of the baseline's."""

    required: float
    observed: float
    low: float
    """One-sided lower bound."""
    high: float
    """One-sided upper bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """One number of both arms that is reported and decides nothing."""

    name: str
    """Such as `majority of 16` or `pass@4`."""
    baseline: float
    candidate: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """The candidate's perplexity over the baseline's."""

    allowed: float
    """Such as 1.01."""
    observed: float
    low: float
    """One-sided lower bound."""
    high: float
    """One-sided upper bound; GO needs it below what is allowed."""
    spread: float = 0.0
    """Of the documents, as a suite states it for its plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskVerdict:
    """The comparison of one task."""

    task: str
    tier: Tier
    baseline: float | None
    """Accuracy as a fraction of 1, or what `scale` says; None where there is none."""
    candidate: float | None
    num_items: int
    num_lost: int
    """Items that the baseline answered rightly and the candidate did not; of a perplexity,
    documents that the candidate finds less likely."""
    num_won: int
    """The other way round."""
    difference: float | None
    """Candidate minus baseline; of a perplexity, minus the logarithm of the ratio."""
    low: float | None
    """One-sided lower bound of the difference; GO needs it above minus the margin."""
    high: float | None
    """One-sided upper bound."""
    margin: float
    """Where a recovery is asked for, what it leaves of the baseline's accuracy."""
    decision: Decision
    reason: ReasonCode
    message: str
    method: str = "Tango's score interval"
    """How the bounds were made."""
    recovery: Recovery | None = None
    """Where a recovery is asked for."""
    plausibility: Plausibility | None = None
    """Beside a published score, where the suite gives one."""
    scale: Scale = Scale.SHARE
    ratio: Ratio | None = None
    """Of a perplexity."""
    num_clusters: int | None = None
    """Where items are grouped."""
    p_value: float | None = None
    """Of so many losses if the candidate were no worse; where it is claimed lossless."""
    rerun_flip_rate: float | None = None
    """Share of items that the baseline answered otherwise when it was run again."""
    length: LengthVerdict | None = None
    """Of generated answers; None where no answer of both arms was counted."""
    repeats: int = 1
    """Answers to each item; lost and won items are those with fewer and with more right ones."""
    estimates: tuple[Estimate, ...] = ()
    """Majority vote and pass@k, where items are asked several times: advisory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flip:
    """One item that the arms answered differently."""

    task: str
    doc_id: int
    prompt: str
    target: str
    baseline: str
    candidate: str
    lost: bool
    """Whether the candidate is the one that is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PooledTest:
    """All items of all tasks together, critical or not."""

    num_items: int
    num_lost: int
    num_won: int
    difference: float
    low: float
    """One-sided lower bound of the difference."""
    high: float
    """One-sided upper bound."""
    p_value: float
    """Of so many losses if the candidate were no worse."""
    margin: float | None
    """The suite's, where it has one; then the pool gates."""
    decision: Decision
    """With a margin, like a task's; without, GO."""
    alarm: bool
    """Whether the candidate is shown to be worse, or with a margin not shown to be within it."""
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The answer to the question that harness is for."""

    decision: Decision
    reason_codes: tuple[ReasonCode, ...]
    summary: str
    """One sentence with the evidence that decided."""
    model: str
    scheme: str
    suite: str
    tasks: tuple[TaskVerdict, ...]
    flips: tuple[Flip, ...]
    """At most 50, lost ones first."""
    flip_rate: float | None
    """Over all items of all tasks."""
    pooled_difference: float | None
    scope: tuple[str, ...]
    """What the verdict holds for, and what was declared and not exercised."""
    waived: tuple[WaivedCheck, ...] = ()
    """Checks that failed and that a reviewed waiver answers for."""
    failed_checks: tuple[str, ...] = ()
    """Ids of the checks that failed and that nothing answers for."""
    checkpoint_digest: str | None = None
    """sha256 over the names and contents of the checkpoint's files, as a waiver names it."""
    baseline: str = ""
    """The unquantized model that it was compared with, as typed."""
    baseline_digest: str | None = None
    """sha256 over the names and contents of its files."""

    @property
    def title(self) -> str:
        """Return the decision as it is shown: a GO that rests on waivers never looks like GO."""
        is_waived = self.decision is Decision.GO and self.waived
        return GO_WITH_WAIVERS if is_waived else self.decision.value

    pooled: PooledTest | None = None
    """None where no item was answered by both arms."""
    rerun_flip_rate: float | None = None
    """Share of all items that the baseline answered otherwise when it was run again."""
    length: LengthVerdict | None = None
    """Of the generated answers of all tasks together; it decides nothing."""
    size: SizeVerdict | None = None
    """Of the weight files; None where those of an arm are not at hand."""
    speed: SpeedVerdict | None = None
    """None where nothing was generated, or no times were taken."""
    buys: str = ""
    """What the candidate is beside the baseline, as the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A scorecard with the samples behind it."""

    scorecard: Scorecard
    samples: Mapping[str, tuple[Sample, ...]]
    """By task, in the order of the task's items."""
