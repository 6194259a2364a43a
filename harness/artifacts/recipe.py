"""What a run was asked to do: the resolved recipe and the suite that scores it."""

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from harness.artifacts.algorithm import PLAIN, Algorithm
from harness.artifacts.limits import (
    MOST,
    STRICT,
    Count,
    Fraction,
    Number,
    Seed,
    Share,
    TaskName,
    Text,
)
from harness.artifacts.published import Published
from harness.artifacts.sharing import ServerShare
from harness.artifacts.smoke_set import SmokeSet
from harness.artifacts.tools import NelSpec, Tool
from harness.artifacts.waivers import Waiver


class KvFormat(StrEnum):
    """How keys and values are stored by the engine."""

    NONE = "none"
    """In the model's own type."""
    FP8_CAST = "fp8_cast"
    """E4M3 with scale 1; no scale tensors in the checkpoint."""
    FP8 = "fp8"
    """E4M3 with one calibrated scale a layer for keys and one for values."""
    NVFP4_CAST = "nvfp4_cast"
    """E2M1 in blocks of 16 along a head, each with an E4M3 scale; the scale of the layer is 1."""
    NVFP4 = "nvfp4"
    """The same with calibrated scales of the layer."""

    @property
    def algorithm(self) -> str | None:
        """Return its name in declarations."""
        return None if self is KvFormat.NONE else self.value.partition("_")[0].upper()

    @property
    def has_scales(self) -> bool:
        """Return whether the checkpoint holds scales of keys and values."""
        return self in (KvFormat.FP8, KvFormat.NVFP4)


class Matching(StrEnum):
    """By which names rules reach quantizers."""

    OWN = "own"
    """Every name that people write; a rule that matches nothing is refused."""
    PEER = "modelopt"
    """Those that Model-Optimizer tries; its recipes serve many families: a rule may match none."""


class ExpertScales(StrEnum):
    """What one scale of a routed expert's matrix is made of."""

    OWN = "own"
    """Its own values; those of gate and up together."""
    LAYER = "layer"
    """The largest value of all experts of its layer: an engine that merges them is right, then."""


class Wording(StrEnum):
    """Whose words config.json has for what is quantized."""

    TODAY = "modelopt-0.47"
    EARLIER = "modelopt-0.37"
    """A MIXED_PRECISION as published with modelopt 0.37's: keys and values are declared in
    hf_quant_config.json alone, and weights of 4 bits as if inputs had 4 bits too. Engines read
    neither: keys and values stay as they are unless a server is told (`--kv-cache-dtype`)."""


class Tier(StrEnum):
    """What a task's result means for the verdict."""

    CRITICAL = "critical"
    """It gates."""
    ADVISORY = "advisory"
    """It is reported."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """By which factor something may differ between the arms, and what follows if it does."""

    __pydantic_config__ = STRICT
    band: Fraction = 0.05
    """0.05 allows ratios from 1 / 1.05 to 1.05."""
    tier: Tier = Tier.ADVISORY


class MissingEvidence(StrEnum):
    """What a run may end with where the engine did not show all that is asked of it (`Gap`)."""

    INCONCLUSIVE = "inconclusive"
    """Nobody knows whether it is right, so nobody says GO."""
    GO = "go"
    """The scores alone may give GO; the verdict names what was not seen."""


class Claim(StrEnum):
    """What is said of a candidate beyond its margin."""

    LOSSLESS = "lossless"
    """It is no worse at all: a significant loss is NO-GO even within the margin."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Quantizers whose name matches `quantizer` get `format`; the last rule that matches wins."""

    __pydantic_config__ = STRICT
    quantizer: Text
    """Wildcard pattern (fnmatch) on quantizer names, such as `*mlp.experts*weight_quantizer`."""
    format: str
    """A name in harness.formats (`nvfp4`, `fp8`), or `none` to leave the quantizer off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageSpec:
    """How many tokens calibration should show to each routed expert."""

    __pydantic_config__ = STRICT
    min_tokens: Count
    """An expert whose projection saw fewer is thin."""
    max_thin: Share
    """Share of projections of experts that may be thin; with more the run cannot end GO."""
    max_size: Number = 0
    """Samples up to which more are drawn while too many are thin; 0 draws none."""


ANY_COVERAGE = CoverageSpec(min_tokens=1, max_thin=1.0)
"""Where nothing is said of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSpec:
    """Which text calibrates the model, and how it is run."""

    __pydantic_config__ = STRICT
    data: str
    """`canary`, `default`, the path of a JSONL file, or the name of a public data set."""
    size: Count
    """Number of samples at most."""
    seq: Annotated[int, Field(ge=2, le=MOST)]
    """Tokens of a sample at most."""
    seed: Seed
    """Of the order in which samples are drawn."""
    batch_tokens: Annotated[Count | None, BeforeValidator(lambda n: None if n == "auto" else n)]
    """Tokens of a batch at most; None (`auto`) for what the machine runs best, which is measured. A
    batch holds samples of one length, so none is padded."""
    layerwise: bool
    """Run one decoder layer over all batches before the next (same bytes, one layer resident)."""
    experts: Annotated[str, Field(pattern="^(eager|grouped)$")] = "grouped"
    """All routed experts of a layer in one product (`grouped`), or one by one (`eager`)."""
    coverage: CoverageSpec = ANY_COVERAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class MemorySpec:
    """Bounds of what calibration and quantization may take; None for all there is."""

    gpu_bytes: int | None = None
    """Of each GPU, as torch allocates it."""
    host_bytes: int | None = None
    """Anonymous memory of each process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSpec:
    """One task of a suite, lm-eval's unless it says otherwise."""

    __pydantic_config__ = STRICT
    name: TaskName
    """As lm-eval knows it, or any name where `task` has lm-eval's."""
    task: TaskName | None = None
    """As lm-eval knows it, where that is not `name`; tasks of one such are asked once."""
    tool: Tool = Tool.LM_EVAL
    """`nel`: one of the benchmarks in the suite's configuration of NeMo Evaluator."""
    tier: Tier
    metric: str
    """Metric of lm-eval, such as `exact_match` or `acc`: 0 or 1 for each item, unless `value_range`
    says otherwise; or a perplexity, with a `relative_margin`."""
    filter: str
    """lm-eval's filter whose answers count; `none` where the task has none."""
    items: Annotated[int, Field(ge=1, le=1_000_000)]
    """Number of items that are answered, from the task's beginning."""
    margin: Fraction | None = None
    """Largest loss that is allowed, as a fraction of 1; None where another form is asked for."""
    flip_rate: Share = 0.0
    """Share of items expected to differ between the arms; planning uses it. Measured."""
    num_fewshot: Annotated[int, Field(ge=0, le=1000)]
    """Worked examples put before each question."""
    chance: Share = 0.0
    """Accuracy of guessing, as a fraction of 1; of a perplexity, 1 over that of guessing."""
    recovery: Fraction | None = None
    """Share of the baseline's accuracy that must be kept, such as 0.99; instead of `margin`."""
    relative_margin: Fraction | None = None
    """By how much a perplexity may rise, such as 0.01 for 1 %; instead of `margin`. Of bits per
    byte it is the rise of the perplexity per byte, which is 2 to their power."""
    claim: Claim | None = None
    cluster: str = ""
    """Field of lm-eval's document that names the group of an item; empty: items are independent."""
    clusters: Number = 0
    """Groups that the items form; planning uses it."""
    design_effect: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    """By how much grouping widens the variance at least, as measured on other candidates."""
    value_range: tuple[float, float] | None = None
    """Worst and best value of the metric, mapped to 0 and 1; None where it is 0 or 1 itself."""
    spread: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Expected root mean square of the differences of items that differ; planning uses it. Of a
    perplexity: of what is left of a document's difference in nats when the mean difference by its
    words (bytes, targets) is taken off, over the mean number of these."""
    baseline_accuracy: Share = 1.0
    """Expected; planning of `recovery` and of `repeats` uses it."""
    length: Band | None = None
    """Of the answers' length in tokens; None: the suite's."""
    repeats: Annotated[int, Field(ge=1, le=1024)] = 1
    """Times that each item is asked; its score is the share of right answers (pass@1)."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """With which answers are drawn; 0: they are greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Answers are drawn from the likeliest tokens that have this much together."""
    top_k: Number = 0
    """Answers are drawn from so many likeliest tokens; 0: from all."""
    item_sd: Share | None = None
    """How far items differ in what the candidate loses on them (standard deviation over the items
    of candidate - baseline, each asked without end); planning of `repeats` uses it. Measured."""
    repeat_sd: Annotated[float, Field(ge=0, le=2)] | None = None
    """How far repeats of one item differ (standard deviation of one answer's candidate - baseline
    within an item); planning of `repeats` uses it. Measured."""

    thinking_budget: Count | None = None
    """Tokens for what is thought before an answer; None: the suite's."""
    published: Published | None = None
    """A score that somebody has published; it changes no score, so it is part of no digest."""

    @property
    def asked(self) -> str:
        """Return the name under which lm-eval, or another tool, knows the task."""
        return self.task or self.name

    @property
    def kept(self) -> float:
        """Share of the baseline's accuracy that the candidate's is compared with."""
        return 1.0 if self.recovery is None else self.recovery

    @property
    def is_drawn(self) -> bool:
        """Whether answers are drawn and not greedy."""
        return self.temperature > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """Everything that changes a score, and what is done with the scores."""

    name: str
    tasks: tuple[TaskSpec, ...]
    max_model_len: int
    """Tokens of prompt and answer together."""
    apply_chat_template: bool
    thinking: bool = False
    """Whether the model reasons before it answers."""
    think_end_token: str | None = None
    """What ends the reasoning, such as `</think>`; the answer follows it."""
    thinking_budget: int = 0
    """Tokens for the reasoning, apart from each task's own output budget, where a task does not say
    another."""
    seed: int
    batch_size: int
    """Prompts answered at once by the reference engine."""
    confidence: float
    """Of each one-sided bound, such as 0.95."""
    max_truncated: float
    """Share of answers that may end at the output budget, in either arm."""
    max_rise: float = 0.01
    """By how much the shares of cut and of empty answers may rise, as a fraction of 1."""
    pooled_margin: float | None = None
    """Largest loss over all items of all tasks; None: a loss there is a warning."""
    length: Band = Band()
    """Of each task's answers' length in tokens."""
    speed: Band = Band()
    """Of the tokens a second, where the arms' speeds can be compared; faster is always allowed."""
    digest: str
    """sha256 of the above that changes a score, and of the definitions and data of tasks that ship
    or are own."""
    smoke: SmokeSet | None = None
    """What is asked before scoring; no part of the digest, for it changes no score."""
    tasks_from: tuple[str, ...] = ()
    """Folders of own tasks; what they hold is in the digest, where they lie is not."""
    task_code: bool = False
    """Whether Python that own tasks name may run; said on the command line alone."""
    signoff: bool = False
    """Whether a release may be signed off with it: its file says so, and nothing that was typed
    (--margin, --budget, --tasks-from) made another suite of it."""
    nel: NelSpec | None = None
    """None where NeMo Evaluator asks no task."""

    @property
    def of_lm_eval(self) -> tuple[TaskSpec, ...]:
        """Return the tasks that lm-eval asks."""
        return tuple(task for task in self.tasks if task.tool is Tool.LM_EVAL)

    @property
    def of_nel(self) -> tuple[TaskSpec, ...]:
        """Return the tasks that NeMo Evaluator asks."""
        return tuple(task for task in self.tasks if task.tool is Tool.NEL)

    def thinking_budget_of(self, task: TaskSpec) -> int:
        """Return the tokens for what is thought before each answer to a task."""
        own = task.thinking_budget
        return self.thinking_budget if own is None else own


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Which engine serves the checkpoint, with which settings."""

    name: str
    """`reference`, `vllm` or `docker`."""
    numerics: str
    """`deployed` or `declared`."""
    device: str
    """Torch device of the reference engine, such as `cpu` or `cuda`."""
    dtype: str
    """Type of the arithmetic between quantized layers: `float32`, or `bfloat16`."""
    version: str | None = None
    """Of vLLM, such as `0.32.0`; None for the reference engine."""
    max_model_len: int | None = None
    """Tokens of prompt and answer together; the suite's."""
    arguments: tuple[str, ...] = ()
    """`KEY=VALUE` as --engine-arg takes them; the same for both arms."""
    tensor_parallel_size: int = 1
    """GPUs that one server is spread over."""
    place: str | None = None
    """Environment that holds the server, or its Python; it changes no number."""
    image: str | None = None
    """Of the docker engine, by digest or id."""
    share: ServerShare | None = None
    """Where another server runs beside it; decides how fast it answers, not what."""

    def identity(self) -> "EngineSpec":
        """Return what decides numbers: without the places where things lie, and who is there."""
        return dataclasses.replace(self, place=None, share=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """What a checkpoint is compared with, on which engine, with which questions."""

    name: str
    """Of the recipe, such as `nvfp4`; `gate` for a checkpoint that was made elsewhere."""
    model: str
    """The unquantized model as typed: a Hub id, a folder, or `canary`."""
    revision: str | None
    checkpoint: str | None = None
    """Folder of a checkpoint that was made elsewhere; None where the run makes it."""
    engine: EngineSpec
    suite: Suite
    skip_verify: bool
    baseline: str | None = None
    """What --baseline named as typed, where it is not `model`."""
    waivers: tuple[Waiver, ...] = ()
    """As the file that --waivers names holds them; never found by itself."""
    missing_evidence: MissingEvidence = MissingEvidence.INCONCLUSIVE
    end_early: bool = False
    """Whether the candidate is asked no more once it is known not to be GO."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe(Trial):
    """The whole run as it was asked for, with every default filled in."""

    rules: tuple[Rule, ...]
    exclude: tuple[str, ...]
    """Patterns on quantizer names that stay unquantized whatever the rules say."""
    kv_cache: KvFormat
    calibration: CalibrationSpec
    device: str
    """Torch device that calibrates and quantizes, such as `cpu` or `cuda`."""
    ranks: int = 1
    """Processes that calibrate and quantize together, a GPU each; they change no byte."""
    memory: MemorySpec = MemorySpec()
    wording: Wording = Wording.TODAY
    matching: Matching = Matching.OWN
    expert_scales: ExpertScales = ExpertScales.OWN
    algorithm: Algorithm = PLAIN
