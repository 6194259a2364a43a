"""What differs between two runs, and what of it could have made their scores differ."""

from dataclasses import dataclass
from enum import StrEnum

from harness.artifacts.scale import Scale


class Part(StrEnum):
    """Something that two runs have alike or not; in the order in which scores depend on them."""

    QUESTIONS = "questions"
    """What the suite asks: items, shots, template, generation arguments."""
    PROMPTS = "prompts"
    """As they were really sent."""
    CHECKPOINT = "checkpoint"
    """The bytes that answered."""
    PLAN = "plan"
    """What the recipe makes of each weight."""
    STATS = "calibration statistics"
    RECIPE = "recipe"
    """Its rules, and what else decides the plan."""
    CALIBRATION = "calibration"
    """Data and settings."""
    MODEL = "unquantized model"
    KERNELS = "kernels"
    """What computes, and which arithmetic."""
    ARGUMENTS = "server arguments"
    ENGINE = "engine"
    """Name, version and what is installed beside it in its own environment."""
    HARDWARE = "hardware"
    VERSIONS = "versions"
    """Of harness and the packages that change numbers."""
    ENVIRONMENT = "environment"
    """Everything else that is installed with harness; operating system."""
    HOST = "host"
    """Which machine, where all that is known of it is the same."""
    ANSWERS = "answers"
    """Of the candidate."""
    CHECKS = "checks"
    """What verification and the smoke run found."""
    BASELINE = "baseline's answers"
    JUDGING = "judging"
    """Margins, tolerances, waivers: what changes verdicts and no score."""
    ENDING = "ending"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One thing that is not the same in both runs."""

    part: Part
    what: str
    """Such as `rule 5, *lm_head*`."""
    a: str | None
    """None where A has no such thing."""
    b: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """A part that differs although nothing that it is made from does."""

    part: Part
    differences: tuple[Difference, ...]
    through: tuple[Part, ...]
    """On the way from it to what came out: `plan`, `checkpoint`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDifference:
    """One task of both runs' candidates (or baselines)."""

    task: str
    a: float | None
    """The score, in the task's unit; None where A has none."""
    b: float | None
    num_items: int
    """Answers to the same questions, which are compared one by one."""
    num_lost: int
    """Of these, better in A."""
    num_won: int
    """Better in B."""
    num_reworded: int
    """Other words with the same score."""
    difference: float | None
    """B minus A over these answers; None where there are none, or of log-likelihoods."""
    low: float | None
    """One-sided 95 % bounds of it."""
    high: float | None
    scale: Scale = Scale.SHARE
    note: str = ""
    """Why some or all of it is not compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlippedItem:
    """An item that is scored otherwise in both runs."""

    task: str
    doc_id: int
    prompt: str
    target: str
    a: str
    """The answer in A."""
    b: str
    lost: bool
    """Whether the one in B is the worse."""


class TensorChange(StrEnum):
    """What became of tensors."""

    ADDED = "only in B"
    LOST = "only in A"
    RETYPED = "other type or shape"
    CHANGED = "other values"


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorGroup:
    """Tensors of one name but for numbers, to which the same happened."""

    pattern: str
    """Such as `model.layers.*.mlp.experts.*.down_proj.input_scale`."""
    change: TensorChange
    num_tensors: int
    num_alike: int
    """Tensors of this pattern that both have and that are the same."""
    is_scale: bool
    ratio: tuple[float, float, float] | None = None
    """Of changed scales: the smallest, median and largest value of B over that of A."""
    share: float | None = None
    """Of changed tensors: which part of their values is another."""
    num_unusual: int = 0
    """Scales of A or B of which no ratio can be said: zero, negative or not finite."""
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedRun:
    """One of the two."""

    place: str
    name: str
    """Model and recipe, as far as they are known."""
    ending: str
    """A verdict's title, or how it failed."""
    summary: str
    """What decided."""
    notes: tuple[str, ...]
    """What of it is damaged, gone or changed, so that it is not compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDifference:
    """Two runs beside each other."""

    a: ComparedRun
    b: ComparedRun
    outcome: str
    """What came out differently, in one sentence."""
    causes: tuple[Cause, ...]
    """What could have caused it, the most direct first."""
    without_effect: tuple[Part, ...]
    """Parts that differ and through which nothing reached what came out."""
    same: tuple[Part, ...]
    unknown: tuple[Part, ...]
    """Parts that at least one run does not record."""
    differences: tuple[Difference, ...]
    """All that differ, causes or not."""
    tasks: tuple[TaskDifference, ...]
    baseline_tasks: tuple[TaskDifference, ...]
    flips: tuple[FlippedItem, ...]
    num_flips: int
    """More than `flips` holds, maybe."""
    tensors: tuple[TensorGroup, ...]
    tensors_note: str
    """How far the checkpoints' files were compared."""
