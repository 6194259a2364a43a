"""The YAML of a recipe and of a suite, as pydantic models: unknown keys are refused.

A file is complete and flat: no inheritance, no variables. What the command line may override is
optional here only where a value could not be written down before the model is known (`auto`).
"""

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.artifacts import KvFormat, Tier
from harness.errors import UsageError

Model = TypeVar("Model", bound=BaseModel)
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleFile(_Strict):
    """One rule of a recipe."""

    quantizer: Annotated[str, Field(min_length=1)]
    format: str


class CalibrationFile(_Strict):
    """How a recipe calibrates."""

    data: str
    size: Count
    seq: Annotated[int, Field(ge=2)]
    seed: int
    batch_tokens: Count
    layerwise: bool


class RecipeFile(_Strict):
    """A whole recipe."""

    version: Literal[1]
    name: str
    description: str
    rules: Annotated[tuple[RuleFile, ...], Field(min_length=1)]
    exclude: tuple[str, ...]
    kv_cache: KvFormat
    calibration: CalibrationFile
    engine: Literal["auto", "reference", "vllm", "docker"]
    engine_args: tuple[str, ...] = ()
    """`KEY=VALUE` each, as --engine-arg takes them."""
    suite: str


class TaskFile(_Strict):
    """One task of a suite."""

    name: str
    tier: Tier
    metric: str
    filter: str
    items: Count
    margin: Annotated[float, Field(gt=0, lt=1)]
    flip_rate: Share
    num_fewshot: Annotated[int, Field(ge=0)]
    chance: Share


class SuiteFile(_Strict):
    """A whole suite."""

    version: Literal[1]
    name: str
    max_model_len: Count
    apply_chat_template: bool
    thinking: bool = False
    think_end_token: str | None = None
    thinking_budget: Annotated[int, Field(ge=0)] = 0
    seed: int
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    max_truncated: Share
    tasks: Annotated[tuple[TaskFile, ...], Field(min_length=1)]


def read_yaml(path: Path, schema: type[Model], error: type[UsageError]) -> Model:
    """Read and check a YAML file.

    Raises:
        UsageError: as `error`, with the file, the field and what is wrong there.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
        first_line = str(cause).splitlines()[0]
        message = f"'{path}' cannot be read as YAML: {first_line}. Mend the file."
        raise error(message) from cause
    try:
        return schema.model_validate(values)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        message = f"'{path}', {where}: {first['msg']} (got {first['input']!r:.80}). Mend the file."
        raise error(message) from cause
