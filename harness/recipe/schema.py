"""The YAML of a recipe and of a suite, as pydantic models: unknown keys are refused.

A file is complete and flat: no inheritance, no variables. What the command line may override is
optional here only where a value could not be written down before the model is known (`auto`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from harness.artifacts import (
    PLAIN,
    Algorithm,
    Band,
    CalibrationSpec,
    Claim,
    ExpertScales,
    KvFormat,
    Matching,
    MissingEvidence,
    Rule,
    TaskSpec,
    Tool,
    Wording,
)
from harness.artifacts.limits import STRICT, Count, Fraction, Name, Number, Seed, Share, Text
from harness.errors import UsageError
from harness.reading import read_yaml_file, refused_as
from harness.recipe.names import nearest

Model = TypeVar("Model", bound=BaseModel)
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_MOST_SAID = 20
"""Things that are wrong with one file; who has more has taken another file."""
_MAX_RULES = 4096
"""More than a recipe needs that treats every layer of 94 in a way of its own."""


class Strict(BaseModel):
    """Unknown keys are refused."""

    model_config = STRICT


class RecipeFile(Strict):
    """A whole recipe."""

    version: Literal[1]
    name: Name
    description: str
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=_MAX_RULES)]
    exclude: Annotated[tuple[str, ...], Field(max_length=_MAX_RULES)]
    kv_cache: KvFormat
    wording: Wording = Wording.TODAY
    matching: Matching = Matching.OWN
    expert_scales: ExpertScales = ExpertScales.OWN
    algorithm: Algorithm = PLAIN
    calibration: CalibrationSpec
    engine: Literal["auto", "reference", "vllm", "docker", "sglang"]
    engine_args: tuple[str, ...] = ()
    """`KEY=VALUE` each, as --engine-arg takes them."""
    suite: str
    missing_evidence: MissingEvidence = MissingEvidence.INCONCLUSIVE
    """What the run may end with where the engine did not show what it loaded or computes."""


def _fits_together(given: object, made: ValidatorFunctionWrapHandler) -> TaskSpec:
    """Refuse fields of a task that contradict or miss each other."""
    task: TaskSpec = made(given)
    typed = given if isinstance(given, Mapping) else {}
    worst, best = task.value_range or (0.0, 1.0)
    problems = {
        "give one of margin, recovery and relative_margin": (
            sum(form is not None for form in (task.margin, task.recovery, task.relative_margin))
            != 1
        ),
        "cluster and clusters (2 or more) belong together": (
            (task.clusters >= 2) != bool(task.cluster)  # noqa: PLR2004  a group alone shows no spread
        ),
        "the worst and the best value of value_range are the same": worst == best,
        "a recovery needs a value_range that begins at 0": task.recovery and worst != 0,
        "value_range needs the spread of its differences": (
            task.value_range and "spread" not in typed
        ),
        "recovery needs the baseline_accuracy that is expected": (
            task.recovery and "baseline_accuracy" not in typed
        ),
        "repeats of a greedy answer are alike: repeats need a temperature above 0": (
            task.repeats > 1 and not task.is_drawn
        ),
        "top_p and top_k need a temperature above 0": (
            not task.is_drawn and (task.top_p != 1 or task.top_k)
        ),
        "repeats need item_sd, repeat_sd and baseline_accuracy, as measured": (
            task.repeats > 1 and not {"item_sd", "repeat_sd", "baseline_accuracy"} <= set(typed)
        ),
        "repeats are grouped by item, so they cannot have a cluster beside it": (
            task.repeats > 1 and task.cluster
        ),
        "NeMo Evaluator's tasks have no top_k, thinking_budget, relative_margin or filter": (
            task.tool is Tool.NEL
            and (
                task.top_k or task.thinking_budget or task.relative_margin or task.filter != "none"
            )
        ),
        **_of_a_perplexity(task, typed),
    }
    if wrong := _of_published(task):
        raise ValueError(wrong)
    for problem, is_so in problems.items():
        if is_so:
            raise ValueError(problem)
    return task


def _of_a_perplexity(task: TaskSpec, typed: Mapping[object, object]) -> Mapping[str, bool]:
    """Return what must be given for a perplexity and what for anything else."""
    rises = task.relative_margin is not None
    return {
        "relative_margin needs the spread of documents": rises and "spread" not in typed,
        "a perplexity has no value_range": rises and task.value_range is not None,
        "a perplexity is read, not drawn: it has no temperature": rises and task.is_drawn,
        "flip_rate is missing": not rises and "flip_rate" not in typed,
        "chance is missing": not rises and "chance" not in typed,
    }


def _of_published(task: TaskSpec) -> str:
    """Return what is wrong with a published score; empty where nothing is."""
    if task.published is None:
        return ""
    value, worst_best = task.published.value, task.value_range or (0.0, 1.0)
    if task.relative_margin is None and not min(worst_best) <= value <= max(worst_best):
        return (
            f"the published value {value:g} is not between {min(worst_best):g} and "
            f"{max(worst_best):g}, as the metric is (0.873 for 87.3 %)"
        )
    return "" if value > 0 or task.relative_margin is None else "a perplexity is above 0"


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
    length: Band = Band()
    """Of each task that has no band of its own."""
    speed: Band = Band()
    smoke: str | None = None
    """Name of the smoke set, or the path of its file from the suite's folder."""
    tasks_from: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """Folders of own lm-eval tasks, from the suite's folder."""
    signoff: bool = False
    """Whether a release may be signed off with it; the same in `Suite`."""
    nel: Text | None = None
    """NeMo Evaluator's configuration, from the suite's folder; its tasks say `tool: nel`."""
    tasks: Annotated[
        tuple[Annotated[TaskSpec, WrapValidator(_fits_together)], ...], Field(min_length=1)
    ]


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
        found = mistakes_in(cause, schema.model_fields, nested=TaskSpec.__dataclass_fields__)
        message = f"'{path}', {'; '.join(found[:_MOST_SAID])}. Mend the file."
        raise error(message) from cause


def mistakes_in(
    error: ValidationError, known: Iterable[str], *, nested: Iterable[str] = ()
) -> list[str]:
    """Return what is wrong with the values of a file, each with its place.

    Args:
        error: as pydantic found it.
        known: keys that the file has.
        nested: keys of what lies in it.
    """
    return [_said(one, known if len(one["loc"]) == 1 else nested) for one in error.errors()]


def _said(found: Mapping[str, Any], known: Iterable[str]) -> str:
    """Return one thing that is wrong with a file, and where."""
    where = ".".join(str(part) for part in found["loc"]) or "the whole file"
    if found["type"] in _UNKNOWN_KEY:
        near = nearest(str(found["loc"][-1]), known, count=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        return f"{where}: there is no such key{hint}"
    return f"{where}: {found['msg']} (got {found['input']!r:.80})"
