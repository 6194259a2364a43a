"""The YAML of a recipe and of a suite, as pydantic models: unknown keys are refused.

A file is complete and flat: no inheritance, no variables. What the command line may override is
optional here only where a value could not be written down before the model is known (`auto`).
"""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.artifacts import Claim, KvFormat, Tier
from harness.errors import UsageError
from harness.reading import read_yaml_file, refused_as

Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
MOST = 2**31 - 1
"""Of anything that is counted; the largest number that every library here takes."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Number = Annotated[int, Field(ge=0, le=MOST)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""As numpy takes it."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""Part of a folder's name: letters, digits, `.`, `_` and `-`."""
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+()-]{0,127}$")]
"""Name of a file of samples; lm-eval has some with brackets."""
_MAX_RULES = 4096
"""More than a recipe needs that treats every layer of 94 in a way of its own."""


class Strict(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RuleFile(Strict):
    """One rule of a recipe."""

    quantizer: Annotated[str, Field(min_length=1)]
    format: str


class CoverageFile(Strict):
    """How many tokens each routed expert should see."""

    min_tokens: Count
    max_thin: Share
    max_size: Number = 0


class CalibrationFile(Strict):
    """How a recipe calibrates."""

    data: str
    size: Count
    seq: Annotated[int, Field(ge=2, le=MOST)]
    seed: Seed
    batch_tokens: Count | Literal["auto"]
    layerwise: bool
    experts: Literal["eager", "grouped"] = "grouped"
    coverage: CoverageFile | None = None


class RecipeFile(Strict):
    """A whole recipe."""

    version: Literal[1]
    name: Name
    description: str
    rules: Annotated[tuple[RuleFile, ...], Field(min_length=1, max_length=_MAX_RULES)]
    exclude: Annotated[tuple[str, ...], Field(max_length=_MAX_RULES)]
    kv_cache: KvFormat
    calibration: CalibrationFile
    engine: Literal["auto", "reference", "vllm", "docker"]
    engine_args: tuple[str, ...] = ()
    """`KEY=VALUE` each, as --engine-arg takes them."""
    suite: str


class TaskFile(Strict):
    """One task of a suite."""

    name: TaskName
    tier: Tier
    metric: str
    filter: str
    items: Annotated[int, Field(ge=1, le=1_000_000)]
    margin: Fraction | None = None
    recovery: Fraction | None = None
    claim: Claim | None = None
    cluster: str = ""
    clusters: Number = 0
    design_effect: Annotated[float, Field(ge=1, le=1e6)] = 1.0
    value_range: tuple[float, float] | None = None
    spread: Annotated[float, Field(gt=0, le=1)] = 1.0
    baseline_accuracy: Share = 1.0
    flip_rate: Share
    num_fewshot: Annotated[int, Field(ge=0, le=1000)]
    chance: Share

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse fields that contradict or miss each other."""
        worst, best = self.value_range or (0.0, 1.0)
        problems = {
            "give either a margin or a recovery": (self.margin is None) == (self.recovery is None),
            "cluster and clusters (2 or more) belong together": (
                (self.clusters >= 2) != bool(self.cluster)  # noqa: PLR2004  a group alone shows no spread
            ),
            "the worst and the best value of value_range are the same": worst == best,
            "a recovery needs a value_range that begins at 0": self.recovery and worst != 0,
            "value_range needs the spread of its differences": (
                self.value_range and "spread" not in self.model_fields_set
            ),
            "recovery needs the baseline_accuracy that is expected": (
                self.recovery and "baseline_accuracy" not in self.model_fields_set
            ),
        }
        for problem, is_so in problems.items():
            if is_so:
                raise ValueError(problem)
        return self


class SuiteFile(Strict):
    """A whole suite."""

    version: Literal[1]
    name: Name
    max_model_len: Count
    apply_chat_template: bool
    thinking: bool = False
    think_end_token: str | None = None
    thinking_budget: Number = 0
    seed: Seed
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    max_truncated: Share
    max_rise: Share = 0.01
    pooled_margin: Fraction | None = None
    claim: Claim | None = None
    """Of every task that makes none itself."""
    smoke: str | None = None
    """Name of the smoke set, or the path of its file from the suite's folder."""
    tasks: Annotated[tuple[TaskFile, ...], Field(min_length=1)]


def read_yaml(path: Path, schema: type[Model], error: type[UsageError]) -> Model:
    """Read and check a YAML file.

    Raises:
        UsageError: as `error`, with the file, the field and what is wrong there.
    """
    with refused_as(error, "Mend the file."):
        values = read_yaml_file(path)
    try:
        return schema.model_validate(values)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        message = f"'{path}', {where}: {first['msg']} (got {first['input']!r:.80}). Mend the file."
        raise error(message) from cause
