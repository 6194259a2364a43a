"""Fill in a recipe: the YAML file, then what was typed, then what follows from the model."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from harness import shipped
from harness.artifacts import CalibrationSpec, EngineSpec, KvFormat, Recipe, Rule
from harness.errors import RecipeError, UsageError
from harness.recipe.names import choose_file
from harness.recipe.schema import RecipeFile, read_yaml
from harness.recipe.suites import load_suite

CANARY = "canary"
_NUMERICS = ("deployed", "declared")


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was typed; None where nothing was."""

    model: str
    qformat: str | None = None
    """A shipped recipe by name."""
    recipe: Path | None = None
    """A recipe file, instead of `qformat`."""
    revision: str | None = None
    kv_cache: str | None = None
    calib_data: str | None = None
    calib_size: int | None = None
    calib_seq: int | None = None
    layerwise: bool | None = None
    suite: str | None = None
    margin: float | None = None
    engine: str | None = None
    numerics: str | None = None
    device: str = "auto"
    skip_verify: bool = False


def recipe_names() -> list[str]:
    """Return the shipped formats, as --qformat takes them."""
    return sorted(path.stem for path in shipped.recipes().glob("*.yaml"))


def load_recipe(request: Request) -> Recipe:
    """Return the whole recipe for `request`.

    Raises:
        RecipeError: the format is unknown or the recipe's file is malformed.
        SuiteError: the same of the suite.
        UsageError: an option has a value that it cannot have.
    """
    file = _read(request)
    if request.numerics not in (None, *_NUMERICS):
        message = f"unknown numerics '{request.numerics}'. Type one of: {', '.join(_NUMERICS)}."
        raise UsageError(message)
    is_canary = request.model == CANARY
    suite = request.suite or file.suite
    return Recipe(
        name=file.name,
        model=request.model,
        revision=request.revision,
        rules=tuple(Rule(quantizer=r.quantizer, format=r.format) for r in file.rules),
        exclude=file.exclude,
        kv_cache=_kv_format(request.kv_cache) if request.kv_cache else file.kv_cache,
        calibration=_calibration(request, file),
        engine=EngineSpec(
            name=request.engine or file.engine,
            numerics=request.numerics or ("declared" if is_canary else "deployed"),
            device=request.device,
            dtype="float32",
        ),
        suite=load_suite(
            (CANARY if is_canary else "nightly") if suite == "auto" else suite,
            margin=request.margin,
        ),
        device=request.device,
        skip_verify=request.skip_verify,
    )


def _read(request: Request) -> RecipeFile:
    if (request.qformat is None) == (request.recipe is None):
        message = (
            "give either --qformat or --recipe. "
            f"Formats: {', '.join(recipe_names())}; a recipe is the path of a YAML file."
        )
        raise RecipeError(message)
    if request.recipe is not None:
        path = choose_file(str(request.recipe.absolute()), Path(), "recipe", RecipeError)
    else:
        path = choose_file(str(request.qformat), shipped.recipes(), "format", RecipeError)
    return read_yaml(path, RecipeFile, RecipeError)


def _calibration(request: Request, file: RecipeFile) -> CalibrationSpec:
    spec = CalibrationSpec(**file.calibration.model_dump())
    data = request.calib_data or spec.data
    if data == "auto":
        data = CANARY if request.model == CANARY else "default"
    size = spec.size if request.calib_size is None else request.calib_size
    seq = spec.seq if request.calib_seq is None else request.calib_seq
    if size < 1:
        message = f"--calib-size {size}: at least one sample is needed. Type --calib-size 512."
        raise UsageError(message)
    if seq < 2:  # noqa: PLR2004 - one token has no next token; the model has nothing to do
        message = f"--calib-seq {seq}: samples need at least two tokens. Type --calib-seq 512."
        raise UsageError(message)
    layerwise = spec.layerwise if request.layerwise is None else request.layerwise
    return dataclasses.replace(spec, data=data, size=size, seq=seq, layerwise=layerwise)


def _kv_format(text: str) -> KvFormat:
    try:
        return KvFormat(text)
    except ValueError:
        known = ", ".join(KvFormat)
        message = f"unknown KV cache format '{text}'. Type --kv-cache-qformat with one of: {known}."
        raise UsageError(message) from None
